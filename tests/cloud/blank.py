"""A database of the control plane with its tables and nothing in them: made once, then copied.

Making the tables takes thirty times as long as a copy, and a thousand tests want them; `test_store` tests the making.
"""

import tempfile
from functools import cache
from pathlib import Path

from cloud.store import CloudStore


def blank_sqlite(path: Path) -> Path:
    """Put one there unless there is a database already; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(_blank())
    return path


@cache
def _blank() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cloud.sqlite"
        CloudStore.open(f"sqlite:///{path}").close()
        return path.read_bytes()
