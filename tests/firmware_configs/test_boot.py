"""The built image boots in QEMU with a wrong clock, decides without a network, enrols, gets a rollout, and is shown.

The image takes minutes to build, so it is not built here: where there is none, this is skipped and says what to type.
One of the present sources is taken if there is one; that it is an older one stands in what the tests print.
Emulated, the boot takes both cores for minutes and starves what runs beside it, so it is asked for with LINESIDE_LONG;
`python -m firmware_configs.prove boot` is the same by hand.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_configs.image.debian import load_image
from firmware_configs.image.sources import kept_image
from firmware_configs.profile import SYSTEM_MEMORY_MB, find_profile
from firmware_configs.prove.qemu import missing
from tests.firmware_configs.cards import MISSING, WHY

ROOT = Path(__file__).parents[2]
IMAGE = kept_image(find_profile("x86-box"))
LACKING = missing("amd64")
BUNDLE, NEWER = (ROOT / f"models/phone_glass/phone_glass-{version}.lsb" for version in ("1.0.0", "1.1.0"))
MAX_ROOT_BYTES = 350 * 2**20
YEARS_AHEAD = "2035-01-01T00:00:00"
"""The harder one: from a clock that is behind systemd goes to the moment of the build by itself, while for one that is
ahead every certificate of the control plane has run out."""
LONGEST_S = 900
"""On a busy machine; a quiet one needs a tenth."""

needs_image = pytest.mark.skipif(IMAGE is None, reason="there is no image: `lineside-flash build x86-box` makes one")
asked = pytest.mark.skipif("LINESIDE_LONG" not in os.environ, reason="emulates a machine: LINESIDE_LONG=1 runs it")
needs_qemu = pytest.mark.skipif(bool(LACKING), reason=f"apt-get install {' '.join(LACKING)}")


@needs_image
def test_root_is_small_enough_and_its_bill_names_what_is_in_it() -> None:
    assert IMAGE is not None
    print(IMAGE.words or f"{IMAGE.folder} is of the present sources")
    assert load_image(IMAGE.folder).root.size_bytes <= MAX_ROOT_BYTES
    names = {component["name"] for component in json.loads((IMAGE.folder / "bill.cdx.json").read_text())["components"]}
    assert {"systemd", "python3.11", "onnxruntime", "opencv-python-headless", "lineside"} <= names
    assert not {"torch", "fastapi", "sqlalchemy"} & names
    licences = dict(line.split("\t")[1::2] for line in (IMAGE.folder / "licences.tsv").read_text().splitlines())
    assert set(licences) == names
    assert all(licences.values())


@asked
@needs_image
@needs_qemu
@pytest.mark.skipif(bool(MISSING), reason=WHY)
@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S + 60)
def test_blank_disk_becomes_a_device_that_decides_alone_then_enrols(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    draw = [sys.executable, "-m", "models.phone_glass.generate", "--out", str(pictures), "--count", "6"]
    subprocess.run(draw, cwd=ROOT, check=True, capture_output=True, timeout=120)
    words = [
        "boot",
        "--bundle",
        str(BUNDLE),
        "--inputs",
        str(pictures),
        "--publish",
        str(NEWER),
        "--clock",
        YEARS_AHEAD,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "firmware_configs.prove", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    story = json.loads(done.stdout)
    print(done.stderr)
    assert story["decisions_before_network"] >= 1
    assert story["decisions_at_console"] == 6
    assert story["clock_off_s"] > 86_400 * 365, "the record does not say what the clock showed"
    assert story["clock_set_s"] > 86_400 * 365
    assert story["bundle_from_plane"].startswith("1.1.0 ")
    assert story["claim_wiped"]
    assert story["listening"] == []
    assert story["system_memory_mb"] <= SYSTEM_MEMORY_MB
