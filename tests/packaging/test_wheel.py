"""The wheel on a device: installed with what a device needs and nothing else, run from outside the checkout."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.bundles import bundle_bytes
from tests.edge.commands.test_device import CONFIG
from tests.edge.commands.test_infer import picture

ROOT = Path(__file__).parents[2]
ABSENT = ("torch", "cloud", "tests", "models", "fastapi", "sqlalchemy", "sklearn", "onnx", "pytest")
"""What must not be importable where only a device's part is installed."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built without asking any registry."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def device_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a clean environment with the wheel and what it depends on, at the locked versions."""
    folder = tmp_path_factory.mktemp("device-env")
    venv.create(folder / "env")
    python = folder / "env" / "bin" / "python"
    pins = [
        line.split(" \\")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if line[:1].isalpha()
    ]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins))
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    install = [*pip, "install", "--quiet", "--disable-pip-version-check", "--no-compile", str(wheel)]
    done = subprocess.run([*install, "--constraint", str(constraints)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return python


def run(python: Path, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run([str(python), *arguments], cwd=cwd, env=clean, capture_output=True, text=True, timeout=120)


def test_wheel_holds_the_packages_and_their_files_and_no_tests_or_models(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops - {"edge", "cloud", "export", "benchmarks", "firmware_configs"} == {
        top for top in tops if top.endswith(".dist-info")
    }
    samples = [str(path.relative_to(ROOT)) for path in (ROOT / "firmware_configs").rglob("*.toml")]
    for needed in ("edge/schema.sql", "cloud/console/templates/base.html", *samples):
        assert needed in names
    assert not [name for name in names if name.endswith(".lsb")]
    assert wheel.stat().st_size < 3 * 2**20, "a device downloads it over a thin line: code and pages, no data"


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_device_runs_from_the_wheel_alone(device_python: Path, tmp_path: Path) -> None:
    (tmp_path / "glass.lsb").write_bytes(bundle_bytes())
    (tmp_path / "box.toml").write_text(CONFIG)
    for number, brightness in enumerate((250, 5, 128)):
        picture(tmp_path / "inbox" / f"{number}.png", brightness)
    commands = device_python.parent
    done = subprocess.run(
        [str(commands / "lineside-edge"), "run", "--drain"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    shown = run(device_python, "-m", "edge", "log", "-c", "box.toml", cwd=tmp_path).stdout.splitlines()
    assert [line.split()[5] for line in shown] == ["pass", "divert", "defer"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ABSENT)
def test_what_a_device_does_not_need_is_not_there(device_python: Path, tmp_path: Path, name: str) -> None:
    done = run(device_python, "-c", f"import {name}", cwd=tmp_path)
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words"),
    [(["lineside-cloud", "--help"], "lineside[cloud]"), (["lineside-export", "train", "phone_glass"], "export extra")],
    ids=["cloud", "export"],
)
def test_command_without_its_extra_names_it(
    device_python: Path, tmp_path: Path, command: list[str], words: str
) -> None:
    program = [str(device_python.parent / command[0]), *command[1:]]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert words in done.stderr
