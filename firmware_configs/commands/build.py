"""`lineside-flash build PROFILE`: the operating system's image, made or found."""

import time

from firmware_configs.commands.shared import as_json, note, say
from firmware_configs.image.make import Inputs, check_image, make_image
from firmware_configs.profile import find_profile


def check(profile: str, inputs: Inputs, *, machines: bool) -> int:
    """Build the image twice and say whether both are the same; return 0 if they are, 1 if not."""
    began_s = time.monotonic()
    compared = check_image(find_profile(profile), inputs, lambda words: note(f"{words} …"))
    root, seconds = compared.made.manifest.root.sha256, time.monotonic() - began_s
    if machines:
        facts = {"folder": str(compared.made.folder), "seconds": round(seconds, 1)}
        say(as_json({**facts, "same": not compared.differing, "differing": compared.differing, "root": root}))
    elif compared.differing:
        folder = compared.made.folder
        say(f"two builds differ in {', '.join(compared.differing)}: {folder} and again-{folder.name} beside it")
    else:
        say(f"two builds of the same inputs are the same: root {root}, in {seconds:.0f} s")
    return 1 if compared.differing else 0


def run(profile: str, inputs: Inputs, *, anew: bool, machines: bool) -> int:
    """Build the image and say where it is and how large."""
    began_s = time.monotonic()
    made = make_image(find_profile(profile), inputs, lambda words: note(f"{words} …"), anew=anew)
    seconds = time.monotonic() - began_s
    if machines:
        facts = {"folder": str(made.folder), "cached": made.cached, "seconds": round(seconds, 1)}
        say(as_json({**facts, **made.manifest.model_dump()}))
        return 0
    say(f"{made.folder}")
    say(f"root {made.manifest.root.size_bytes / 2**20:.0f} MiB, SHA-256 {made.manifest.root.sha256}")
    say(f"{'found' if made.cached else 'built'} in {seconds:.0f} s; bill.cdx.json and licences.tsv lie beside it")
    return 0
