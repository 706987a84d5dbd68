"""Consent of those who are heard, given and withdrawn at a real daemon that runs and listens meanwhile."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.clock import SystemClock
from edge.consent import tell_changes
from edge.store import Store
from edge.wire.rows import EventRow
from tests.edge.command import edge
from tests.edge.commands.test_live import BUNDLE
from tests.edge.sources.test_audio_file import RATE_HZ, put
from tests.waiting import wait_until
from tests.webserver import WebServer

CONFIG = """
[device]
name = "phone-1"
[station.main]
model = "spoken_digits"
bundle = "model.lsb"
isolation = "inline"
audit_share = 0
keep = "all"
{consent}
source = {{ kind = "audio_file", path = "inbox", watch = true }}
actuator = {{ kind = "none" }}
[station.main.ask]
url = "{url}"
timeout_ms = 200
reasons = ["unsure", "out_of_distribution", "bad_input"]
"""
WAIT_S = 30.0


class Phone:
    """A daemon that hears what is put into its folder."""

    def __init__(self, folder: Path, server: WebServer) -> None:
        self.folder, self.server = folder, server
        (folder / "model.lsb").write_bytes(BUNDLE.read_bytes())
        (folder / "inbox").mkdir()
        self.configure("")
        command = [sys.executable, "-m", "edge", "run", "-c", "phone.toml", "--no-live"]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        wait_until(lambda: b": running" in (folder / "log").read_bytes(), WAIT_S, "the daemon")

    def configure(self, consent: str) -> None:
        (self.folder / "phone.toml").write_text(CONFIG.format(consent=consent, url=self.server.url))

    def reload(self, consent: str, event: str) -> EventRow:
        self.configure(consent)
        os.kill(self._process.pid, signal.SIGHUP)
        wait_until(lambda: event in self.events(), WAIT_S, event)
        return self.events()[event]

    def say(self, number: int) -> tuple[Any, bytes]:
        """Say something that the network is unsure of; return its decision and the file."""
        times = np.arange(round(0.6 * RATE_HZ)) / RATE_HZ
        tone = (0.3 * np.sin(2 * np.pi * (500 + 50 * number + 300 * times) * times)).astype(np.float32)
        made = self.folder / f"{number}.wav"
        put(made, tone)
        raw = made.read_bytes()
        made.rename(self.folder / "inbox" / made.name)
        wait_until(lambda: len(self.rows("decision")) > number, WAIT_S, "the decision")
        return self.rows("decision")[number], raw

    def rows(self, kind: str) -> list[Any]:
        with Store.open_read_only(self.folder / "data" / "lineside.sqlite", clock=SystemClock()) as store:
            return store.rows(kind=kind)

    def events(self) -> dict[str, EventRow]:
        return {row.name: row for row in self.rows("event")}

    def on_disk(self, raw: bytes) -> bool:
        # In pieces: SQLite puts a pointer before what fits a page.
        pieces = [raw[start : start + 64] for start in range(1024, 4096, 64)]
        files = [path.read_bytes() for path in (self.folder / "data").iterdir() if path.is_file()]
        return any(piece in file for piece in pieces for file in files)

    def asked(self) -> list[bytes]:
        return [request.body for request in self.server.requests]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Phone]:
    with WebServer() as server:
        server.behaviour.answer = lambda request: (500, b"")
        made = Phone(tmp_path, server)
        yield made
        made.close()


def test_withdrawn_consent_holds_from_the_next_window_on_and_what_was_kept_can_be_forgotten(phone: Phone) -> None:
    first, before = phone.say(0)
    assert first.verdict == "defer" and first.input.kept and phone.on_disk(before)
    wait_until(lambda: before in phone.asked(), WAIT_S, "the question")

    told = phone.reload("sound_consent = false", "sound_consent_withdrawn")
    assert told.station == "main" and told.severity == "warning"
    assert "config_refused" not in phone.events()
    second, without = phone.say(1)
    assert second.verdict == "defer" and not second.input.kept and not phone.on_disk(without)
    assert phone.on_disk(before), "what was kept before stays"

    words = told.detail.partition("lineside-edge ")[2].split()
    result = edge(*words, "-c", "phone.toml", cwd=phone.folder)
    assert result.returncode == 0 and "1 kept inputs erased" in result.stdout, result.stdout + result.stderr
    assert not phone.on_disk(before)

    phone.reload("sound_consent = true", "sound_consent_given")
    third, again = phone.say(2)
    assert third.input.kept and phone.on_disk(again)
    wait_until(lambda: again in phone.asked(), WAIT_S, "the next question")
    assert without not in phone.asked(), "questions go in their order: it was never asked"


def test_change_over_a_restart_is_told_and_a_beginning_without_consent_is_no_news(tmp_path: Path) -> None:
    with Store.open(tmp_path / "record.db", clock=SystemClock(), durability="process") as store:
        for agreed in ({"a": False, "b": True}, {"a": False, "b": True}, {"a": True, "b": False}, {"a": True}):
            tell_changes(store, agreed, "boot")
        told = [(row.name, row.station) for row in store.rows(kind="event") if isinstance(row, EventRow)]
    assert told == [("sound_consent_given", "a"), ("sound_consent_withdrawn", "b")]
