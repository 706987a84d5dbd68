"""`lineside-flash batch`: many cards one after another, each with its own identity, receipt and label.

Rules:
- The list is checked whole, down to every device's configuration, before the first card.
- A card whose receipt is there is done: the same command goes on where it was left. What differs from its receipt is
  a mistake of the list, and told.
- Where several cards go through one reader, each is asked for by its name, and no card of this list is written over.
- A card that fails costs only itself: the others are written, and the end says which are missing.
"""

import sys
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from firmware_configs.batch import Row, read_rows
from firmware_configs.claims import Asked
from firmware_configs.commands.shared import as_json, note, say
from firmware_configs.commands.write import Order, image_of, wanted, write_card
from firmware_configs.errors import ConfigError, FlashError, RefusedError
from firmware_configs.label import write_label
from firmware_configs.profile import find_profile
from firmware_configs.receipt import Receipt
from firmware_configs.seed import make_seed

PLACEHOLDER = "claim-that-is-still-made"
"""Stands in for a claim while the list is checked."""
GUID_AT, GUID_BYTES = 512 + 56, 16
"""Where a disk with a partition table says which it is (UEFI 2.10, table 5.5)."""


@dataclass(frozen=True)
class Batch:
    """All that a person says."""

    devices: Path
    usual: Order
    receipts: Path
    labels: Path | None = None
    claims: Asked | None = None
    """Whom to ask for claims that the list does not have."""


def run(batch: Batch) -> int:
    """Write the cards and print what became of them; return 0, or 1 if some are missing."""
    rows = _rows(batch)
    batch.receipts.mkdir(parents=True, exist_ok=True)
    if batch.labels is not None:
        batch.labels.mkdir(parents=True, exist_ok=True)
    told = []
    for number, row in enumerate(rows, 1):
        note(f"{number} of {len(rows)}: {row.order.device}")
        try:
            receipt, fresh = _one(batch, row)
        except FlashError as error:
            note(f"  {error.for_people()}")
            told.append({"device": row.order.device, "line": row.line, "state": "failed", "why": str(error)})
            continue
        if batch.labels is not None:
            write_label(batch.labels / f"{receipt.device}.png", receipt.device, receipt.site, receipt.seed)
        state = "written" if fresh else "there already"
        told.append({"device": receipt.device, "line": row.line, "state": state, "fingerprint": receipt.seed})
    say(as_json(told))
    missing = [str(one["device"]) for one in told if one["state"] == "failed"]
    if missing:
        note(f"missing: {', '.join(missing)}; the same command writes them")
    return 1 if missing else 0


def _rows(batch: Batch) -> list[Row]:
    try:
        text = batch.devices.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{batch.devices}: cannot read: {error}") from error
    try:
        return read_rows(text, batch.devices.parent, batch.usual, lambda order: _mistakes(batch, order))
    except ConfigError as error:
        raise ConfigError(f"{batch.devices}: {error}", hint=error.hint) from error


def _mistakes(batch: Batch, order: Order) -> Iterable[str]:
    """Say what is wrong with one order, by all that `write` would look at but the medium."""
    try:
        profile = find_profile(order.profile)
        image_of(profile, order.image)
        if order.cloud is not None and order.claim is None:
            if batch.claims is None:
                yield "claim: there is none, and nobody to ask: --server"
            order = replace(order, claim=PLACEHOLDER)
        make_seed(profile, wanted(order))
        done = _receipt(batch, order.device)
    except FlashError as error:
        yield from (line.strip() for line in str(error).splitlines() if not line.endswith("mistake(s)"))
        return
    if done is not None and (done.profile, done.site) != (profile.name, order.site):
        yield f"its receipt says {done.profile} at {done.site}: it was written as another device"


def _one(batch: Batch, row: Row) -> tuple[Receipt, bool]:
    """Write one card; return its receipt, and whether it was not there before."""
    order = row.order
    done = _receipt(batch, order.device)
    if done is not None:
        return done, False
    _wait_for_card(batch, order)
    if order.cloud is not None and order.claim is None:
        assert batch.claims is not None
        order = replace(order, claim=batch.claims.claim(order.device, order.profile, order.site))
    answer = write_card(replace(order, receipt=_place(batch, order.device)))
    assert isinstance(answer, Receipt)
    return answer, True


def _wait_for_card(batch: Batch, order: Order) -> None:
    """Ask for the device's card where it goes through a reader, until one is there that is none of this list."""
    if not str(order.to).startswith("/dev/"):
        return
    asked = sys.stdin.isatty()
    if asked:
        note(f"Put the card of {order.device} into {order.to}, then press Enter")
        sys.stdin.readline()
    while (device := _written_as(batch, order.to)) is not None:
        if not asked:
            raise RefusedError(f"{order.to} holds the card of {device}", hint="put in another one")
        note(f"This is the card of {device}. Put in another one for {order.device}, then press Enter")
        if not sys.stdin.readline():
            raise RefusedError(f"{order.to} holds the card of {device}")


def _written_as(batch: Batch, disk: Path) -> str | None:
    """Return the device of this list whose card lies there, by the identity of its partition table."""
    try:
        with disk.open("rb") as file:
            file.seek(GUID_AT)
            found = file.read(GUID_BYTES)
    except OSError as error:
        raise RefusedError(f"{disk}: {error.strerror}", hint="is a card in the reader?") from error
    receipts = [_read(path) for path in sorted(batch.receipts.glob("*.json"))]
    known = {receipt.disk: receipt.device for receipt in receipts if receipt.disk}
    return known.get(str(uuid.UUID(bytes_le=found)).upper())


def _receipt(batch: Batch, device: str) -> Receipt | None:
    path = _place(batch, device)
    return _read(path) if path.is_file() else None


def _read(path: Path) -> Receipt:
    try:
        return Receipt.model_validate_json(path.read_text())
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{path} is no receipt: {error}", hint="remove it, and its card is written again") from error


def _place(batch: Batch, device: str) -> Path:
    return batch.receipts / f"{device}.json"
