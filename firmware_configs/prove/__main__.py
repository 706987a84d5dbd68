"""`python -m firmware_configs.prove`: proofs of an image that need no hardware, as commands of their own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from firmware_configs.commands.shared import as_json, note, say
from firmware_configs.commands.write import Order
from firmware_configs.errors import FlashError

app = typer.Typer(help="Prove an image in QEMU.", no_args_is_help=True, add_completion=False)


@app.callback()
def proofs() -> None:
    """Prove an image in QEMU, beside a control plane on this machine."""


@app.command()
def boot(
    bundle: Annotated[Path, typer.Option(help="What the device decides with at first.")],
    inputs: Annotated[Path, typer.Option(help="Folder with pictures that it finds.")],
    publish: Annotated[Path | None, typer.Option(help="A newer bundle that it must get over the network.")] = None,
    profile: Annotated[str, typer.Option(help="Which image.")] = "x86-box",
    name: Annotated[str, typer.Option(help="The device's name.")] = "virtual-1",
    image: Annotated[Path | None, typer.Option(help="Folder of `build`; without, the newest of the profile.")] = None,
    clock: Annotated[
        str | None, typer.Option(help="What its clock shows at first: 2035-01-01T00:00:00; without, the right time.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep disk, console and control plane here.")] = None,
) -> None:
    """Write a disk, switch a virtual device on without a network, then plug it in: tell what was observed, as JSON."""
    from firmware_configs.prove import boot as proof

    with _place(folder) as place:
        order = Order(
            profile=profile,
            to=place / "disk.img",
            device=name,
            site="here",
            bundles=[bundle],
            inputs=inputs,
            image=image,
            receipt=place / "receipt.json",
        )
        with _told():
            story = proof.boot(order, place, publish, note, clock)
    say(as_json(proof.as_document(story)))


@app.command("os-update")
def os_update(
    bundle: Annotated[Path, typer.Option(help="What the device decides with.")],
    inputs: Annotated[Path, typer.Option(help="Folder with pictures that it finds.")],
    profile: Annotated[str, typer.Option(help="Which image.")] = "x86-box",
    name: Annotated[str, typer.Option(help="The device's name.")] = "virtual-1",
    image: Annotated[Path | None, typer.Option(help="Folder of `build`; without, the newest of the profile.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep disk, console and control plane here.")] = None,
) -> None:
    """Roll a good and a broken system out to a virtual device: it keeps the one, leaves the other, and says why."""
    from firmware_configs.prove import os_update as proof

    with _place(folder) as place:
        order = Order(
            profile=profile,
            to=place / "disk.img",
            device=name,
            site="here",
            bundles=[bundle],
            inputs=inputs,
            image=image,
            receipt=place / "receipt.json",
        )
        with _told():
            story = proof.os_update(order, place, note)
    say(as_json(asdict(story)))


@app.command()
def cuts(
    bundle: Annotated[Path, typer.Option(help="What the device decides with at first.")],
    publish: Annotated[Path, typer.Option(help="A newer bundle that it gets over the network.")],
    inputs: Annotated[Path, typer.Option(help="Folder with pictures that it finds.")],
    folder: Annotated[Path, typer.Option(help="Keeps the recording, which is used again if it is there.")],
    states: Annotated[int, typer.Option(min=1, help="How many power cuts are judged.")] = 1000,
    boots: Annotated[int, typer.Option(min=0, help="How many of them a device is started from.")] = 20,
    seed: Annotated[int, typer.Option(help="The same one gives the same power cuts.")] = 1,
    *,
    lying_flushes: Annotated[
        bool, typer.Option("--lying-flushes", help="A medium that loses what it said to have kept: must be found.")
    ] = False,
    profile: Annotated[str, typer.Option(help="Which image.")] = "x86-box",
    image: Annotated[Path | None, typer.Option(help="Folder of `build`; without, the newest of the profile.")] = None,
) -> None:
    """Cut a virtual device's power at many moments of its life: judge each state, start some; tell it as JSON."""
    from firmware_configs.prove import cuts as proof
    from firmware_configs.prove.recording import load, record

    with _place(folder) as place, _told():
        order = Order(
            profile=profile,
            to=place / "disk.img",
            device="virtual-1",
            site="here",
            bundles=[bundle],
            inputs=inputs,
            image=image,
        )
        recording = load(place) or record(order, publish, place, note)
        note(f"seed {seed}")
        story = proof.cuts(recording, place, states, seed, note, lying_flushes=lying_flushes)
        if boots and not lying_flushes:
            proof.boots(recording, place, story, boots, note)
    say(as_json(asdict(story)))
    wrong = story.faulty + sum(bool(start.problems) for start in story.starts)
    if bool(wrong) != lying_flushes:
        raise typer.Exit(1)


@app.command()
def foreign(
    bundle: Annotated[Path, typer.Option(help="What is to be judged with.")],
    inputs: Annotated[Path, typer.Option(help="Folder with pictures; two are judged.")],
    profile: Annotated[str, typer.Option(help="Whose wheels.")] = "generic-arm64",
) -> None:
    """Import a profile's wheels and judge pictures with them, as its processor would (QEMU's user emulation)."""
    from firmware_configs.commands.write import pictures_in
    from firmware_configs.profile import find_profile
    from firmware_configs.prove import foreign as proof

    with _told():
        story = proof.foreign(find_profile(profile), bundle, pictures_in(inputs)[:2], note)
    say(as_json(asdict(story)))


@app.command()
def stock(
    bundle: Annotated[Path, typer.Option(help="What the device decides with.")],
    inputs: Annotated[Path, typer.Option(help="Folder with pictures that it finds.")],
    name: Annotated[str, typer.Option(help="The device's name.")] = "virtual-1",
    size: Annotated[str, typer.Option(help="Of the disk.")] = "4G",
    folder: Annotated[Path | None, typer.Option(help="Keep images, console and control plane here.")] = None,
) -> None:
    """Make a stock Debian with cloud-init, inject a device into it, start it: tell what was observed, as JSON."""
    from firmware_configs.prove import stock as proof

    with _place(folder) as place:
        order = Order(
            profile="x86-box",
            to=place / "disk.img",
            device=name,
            site="here",
            bundles=[bundle],
            inputs=inputs,
            size=size,
        )
        with _told():
            story = proof.stock(order, place, note)
    say(as_json(proof.as_document(story)))


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong is told in words and ends the command with its exit code."""
    try:
        yield
    except FlashError as error:
        note(f"prove: {error.for_people()}")
        raise typer.Exit(error.exit_code) from error


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    """Give the folder that was named, or one that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="lineside-prove-") as scratch:
        place = (folder or Path(scratch)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        yield place


if __name__ == "__main__":
    app()
