"""The source archive: whoever has only that can build the same wheel and run the tests, and gets nothing besides."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = {
    "edge", "cloud", "export", "benchmarks", "firmware_configs", "models", "tests",
    "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "requirements.lock", "PKG-INFO", ".gitignore",
}  # fmt: skip
NEEDED = (
    "edge/schema.sql",
    "cloud/console/templates/base.html",
    "cloud/console/static/console.css",
    "cloud/demo_plan.toml",
    "tests/bundles.py",
    "models/phone_glass/phone_glass-1.0.0.lsb",
)
MAX_BYTES = 20 * 2**20
"""The reference bundles are most of it, each under a megabyte."""


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Files of the source archive, without its top folder."""
    out = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = out.glob("*.tar.gz")
    assert archive.stat().st_size < MAX_BYTES
    with tarfile.open(archive) as opened:
        return {member.name.split("/", 1)[1] for member in opened.getmembers() if member.isfile()}


def test_source_archive_holds_what_is_needed(names: set[str]) -> None:
    assert [needed for needed in NEEDED if needed not in names] == []


def test_source_archive_holds_nothing_else(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names} <= TOP
    left_over = {"__pycache__", "work", "runs", ".demo", ".venv"}
    assert [name for name in names if left_over & set(name.split("/")) or name.endswith((".pyc", ".sqlite"))] == []
