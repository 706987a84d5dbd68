"""A device tells nobody but its control plane: its libraries keep and send nothing of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import bundle_bytes

JUDGE = """
import sys
from pathlib import Path
from edge.bundle import load
from edge.engines import EngineSettings, open_engine
engine = open_engine(load(Path(sys.argv[1])), EngineSettings(runtime="onnx", isolation=sys.argv[2]))
print(engine.session.description)
engine.session.close()
"""


@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_judging_leaves_nothing_in_the_home_folder(tmp_path: Path, isolation: str) -> None:
    home, bundle = tmp_path / "home", tmp_path / "glass.lsb"
    home.mkdir()
    bundle.write_bytes(bundle_bytes())
    # No more of the environment than that: what runs in a test or in CI is left alone by those who count use.
    env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", JUDGE, str(bundle), isolation], env=env, capture_output=True, text=True, check=True
    )
    assert "onnxruntime" in done.stdout
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == []
