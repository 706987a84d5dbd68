"""Finds the real pictures and sounds that some tests run on.

Rules:
- `LINESIDE_DATA` names the folder; without it, `shared/data` beside the checkout is tried.
- Where there is none, a test is skipped with a sentence that says so, never passed in silence.
"""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def real_data(name: str) -> Path:
    """Return the folder of one data set, for example `ball-screw`; skip the test if it is not there."""
    root = Path(os.environ.get("LINESIDE_DATA", _BESIDE))
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there; set LINESIDE_DATA to the folder that holds {name}/")
    return folder
