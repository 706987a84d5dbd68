"""The systemd unit and the daemon's own defaults fit together."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.config import DeviceSection, StationSection
from edge.daemon import JOIN_S
from edge.systemd import FEEDS_PER_TIMEOUT

UNIT = Path(__file__).parents[2] / "firmware_configs" / "systemd" / "lineside.service"


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    unit = configparser.RawConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    return unit["Service"]


def test_what_was_taken_in_can_be_decided_before_systemd_kills(service: configparser.SectionProxy) -> None:
    drain_s = DeviceSection.model_fields["drain_s"].default
    assert float(service["TimeoutStopSec"]) >= drain_s + 2 * JOIN_S
    assert service["KillMode"] == "mixed", "else the networks are told to end with the daemon that still needs them"


def test_window_that_takes_its_whole_deadline_is_no_reason_to_end_the_daemon(
    service: configparser.SectionProxy,
) -> None:
    deadline_ms = StationSection.model_fields["deadline_ms"].default
    assert service["Type"] == "notify"
    assert float(service["WatchdogSec"]) / FEEDS_PER_TIMEOUT > 5 * deadline_ms / 1000


def test_share_of_a_core_is_systemds_to_give_and_said_beside_the_cores() -> None:
    text = UNIT.read_text()
    assert "# CPUQuota=" in text and "[device] cores" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/lineside/bin/lineside-edge", sys.executable))
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        check=False,
    )
    assert UNIT.name not in found.stderr, found.stderr
