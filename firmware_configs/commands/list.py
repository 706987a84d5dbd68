"""`lineside-flash list`: the disks of this machine with why some are refused, and the profiles."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from firmware_configs.commands.shared import as_json, say
from firmware_configs.disks import Disk, read_disks, refusals
from firmware_configs.image.debian import cache_folder
from firmware_configs.image.sources import kept_image
from firmware_configs.profile import Profile, all_profiles

SEEN = "listed.json"


def run(*, machines: bool) -> int:
    """Print disks and profiles; note what was seen, so that `write` notices a disk that was changed since."""
    disks, profiles = read_disks(), all_profiles()
    remember(disks)
    if machines:
        listed = [{**asdict(disk), "refused": refusals(disk)} for disk in disks]
        known = [
            {**profile.model_dump(), "image": str(image.folder) if (image := kept_image(profile)) else None}
            for profile in profiles
        ]
        say(as_json({"disks": listed, "profiles": known}))
        return 0
    console = Console()
    console.print(_disk_table(disks))
    console.print(_profile_table(profiles))
    return 0


def remember(disks: list[Disk]) -> None:
    """Keep what a person has now seen."""
    path = cache_folder() / SEEN
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_json([asdict(disk) for disk in disks]))


def remembered(node: str) -> Disk | None:
    """Return a disk as the last `list` showed it; None if it was not there, or nothing was listed."""
    path: Path = cache_folder() / SEEN
    try:
        rows = json.loads(path.read_text())
        found = next((row for row in rows if row["node"] == node), None)
        tuples = {name: tuple(value) for name, value in (found or {}).items() if isinstance(value, list)}
        return Disk(**{**found, **tuples}) if found else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _disk_table(disks: list[Disk]) -> Table:
    table = Table("disk", "size", "bus", "model", "serial", "may be written", title="Disks", title_justify="left")
    for disk in disks:
        verdict = "; ".join(refusals(disk)) or "yes"
        size = f"{disk.size_bytes / 1e9:.1f} GB"
        table.add_row(disk.node, size, disk.bus, disk.model or "–", disk.serial or "–", verdict)
    if not disks:
        table.add_row("none", "", "", "", "", "")
    return table


def _profile_table(profiles: list[Profile]) -> Table:
    table = Table("profile", "board", "processor", "memory", "image", title="Profiles", title_justify="left")
    for profile in profiles:
        image = "not built yet" if profile.os else profile.board.how
        if (found := kept_image(profile)) is not None:
            image = found.folder.name + ("" if found.present else " (older)")
        memory = f"{profile.memory.total_mb} MB"
        table.add_row(profile.name, profile.board.title, f"{profile.cpu.cores} × {profile.cpu.model}", memory, image)
    return table
