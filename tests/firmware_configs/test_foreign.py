"""Wheels of another processor are complete and judge as here; minutes of emulation, so LINESIDE_LONG asks for it.

`python -m firmware_configs.prove foreign` is the same by hand.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_configs.errors import ConfigError
from firmware_configs.image.debian import INTERPRETERS
from firmware_configs.profile import find_profile
from firmware_configs.prove.foreign import CPU_INFO, foreign

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models/phone_glass/phone_glass-1.0.0.lsb"
LACKING = [tool for tool in ("mmdebstrap", INTERPRETERS["arm64"]) if shutil.which(tool) is None]
PROCESSOR_S = 3600


def test_board_without_an_image_says_what_to_do_instead() -> None:
    with pytest.raises(ConfigError, match="rpi5") as told:
        foreign(find_profile("rpi5"), BUNDLE, [], print)
    assert told.value.hint


def test_processor_that_is_shown_to_programs_is_an_arm_boards() -> None:
    assert CPU_INFO["arm64"].count("CPU part\t: 0xd08") == 4


@pytest.mark.skipif("LINESIDE_LONG" not in os.environ, reason="emulates a processor: LINESIDE_LONG=1 runs it")
@pytest.mark.skipif(bool(LACKING), reason="apt-get install mmdebstrap qemu-user-static")
@pytest.mark.slow
@pytest.mark.timeout(PROCESSOR_S)
def test_wheels_for_arm_are_complete_and_judge_as_here(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    draw = [sys.executable, "-m", "models.phone_glass.generate", "--out", str(pictures), "--count", "2"]
    subprocess.run(draw, cwd=ROOT, check=True, capture_output=True, timeout=120)
    named = sorted(pictures.glob("*.jpg"))
    story = foreign(find_profile("generic-arm64"), BUNDLE, named, print)
    assert story.machine == "aarch64"
    here = [sys.executable, "-m", "edge", "infer", str(BUNDLE), *map(str, named), "--runtime", "onnx"]
    told = subprocess.run(here, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120).stdout
    assert [line.split()[:2] for line in story.judged[: len(named)]] == [
        line.split()[:2] for line in told.splitlines()[: len(named)]
    ]
