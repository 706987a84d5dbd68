"""Small choices over examples (which ones, in which order, as which numbers), and keeping things on disk."""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError
from export.evidence import Judged


def only(judged: Judged, kept: NDArray[np.bool_]) -> Judged:
    """Return the judgements of which `kept` is true."""
    slices = [row for row, keep in zip(judged.slices, kept, strict=True) if keep]
    return replace(
        judged, truth=judged.truth[kept], chances=judged.chances[kept], groups=judged.groups[kept], slices=slices
    )


def evenly(labels: NDArray[np.intp]) -> list[int]:
    """Return ten items, as even over the labels as they allow."""
    queues = [list(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    chosen: list[int] = []
    while len(chosen) < min(10, len(labels)):
        chosen.extend(int(queue.pop(0)) for queue in queues if queue)
    return chosen[:10]


def some(places: NDArray[np.intp], count: int, seed: int) -> NDArray[np.intp]:
    """Return at most `count` of the places, chosen by the seed, in order."""
    return np.sort(np.random.default_rng(seed).permutation(places)[:count])


def numbers(groups: list[str]) -> NDArray[np.intp]:
    """Return groups as numbers."""
    return np.asarray(np.unique(np.asarray(groups), return_inverse=True)[1], np.intp)


def save(path: Path, values: NDArray[Any]) -> None:
    """Write an array so that it is there whole or not at all."""
    beside = path.with_suffix(".part.npy")
    np.save(beside, values)
    beside.replace(path)


def sources() -> str:
    """Return one SHA-256 over the code that trains: what other code left on disk is not gone on with."""
    whole = hashlib.sha256()
    for path in sorted((Path(__file__).parent / "training").glob("*.py")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder while nobody else does.

    Raises:
        ConfigError: another process holds it.
    """
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"{folder}: the same fit is running already", hint="wait for it, or give another --out or --seed"
            ) from error
        yield
