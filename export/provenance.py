"""Says which code a bundle was made by, for its lineage."""

import subprocess
from pathlib import Path


def code_commit() -> str:
    """Return the commit of the code, or the version of the package outside of a repository."""
    from importlib.metadata import PackageNotFoundError, version

    here = Path(__file__).parent
    if (here.parent / ".git").exists():
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    try:
        return f"lineside {version('lineside')}"
    except PackageNotFoundError:
        return "unknown"
