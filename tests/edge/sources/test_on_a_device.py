"""Sources in a real daemon: a camera's decisions replay to the bit, and the prediction server drains on SIGTERM."""

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from edge.errors import StoreError
from edge.store import Store
from edge.wire.rows import DecisionRow
from tests import nursery
from tests.bundles import bundle_bytes
from tests.clocks import HeldClock
from tests.edge.command import edge
from tests.edge.sources.mjpeg import MjpegCamera, write_video
from tests.edge.sources.mjpeg import picture as camera_picture
from tests.edge.test_imaging import encoded
from tests.plainhttp import NOBODY
from tests.waiting import wait_until

CONFIG = """
[device]
name = "box-1"
[station.main]
model = "brightness"
bundle = "glass.lsb"
audit_share = 0
keep = "all"
actuator = {{ kind = "none" }}
source = {source}
"""


def device(folder: Path, source: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "glass.lsb").write_bytes(bundle_bytes())
    (folder / "box.toml").write_text(CONFIG.format(source=source))
    return folder


FAILURES: dict[str, Callable[[int], Any]] = {
    "black": lambda number: camera_picture(number) // 40,
    "frozen": lambda _number: camera_picture(1),
    "wrong size": lambda number: camera_picture(number, 96, 80),
    "slow": lambda _number: None,
    "damaged": lambda number: encoded("JPEG", camera_picture(number))[:-200],
    "unplugged": camera_picture,
}


def decisions(folder: Path) -> list[DecisionRow]:
    try:
        with Store.open_read_only(folder / "data" / "lineside.sqlite", clock=HeldClock()) as store:
            return store.last_decisions(500)
    except StoreError:
        return []  # it has only begun


def last_seq(folder: Path) -> int:
    return max((row.seq for row in decisions(folder)), default=0)


def judged_after(folder: Path, seq: int) -> bool:
    return any(row.seq > seq and row.scores for row in decisions(folder))


def told_after(folder: Path, seq: int, word: str) -> bool:
    """Return whether something was deferred as bad input for this reason, without scores."""
    return any(
        row.seq > seq and row.reason == "bad_input" and (row.detail or "").startswith(word) and not row.scores
        for row in decisions(folder)
    )


def logged(folder: Path) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for line in edge("log", "-c", "box.toml", "--json", "--last", "100", cwd=folder).stdout.splitlines()
    ]


def test_decisions_on_a_cameras_frames_replay_to_the_bit_and_as_a_source(tmp_path: Path) -> None:
    camera = device(tmp_path / "camera", '{ kind = "camera", path = "line.avi" }')
    write_video(camera / "line.avi", 5)
    assert edge("run", "-c", "box.toml", "--drain", cwd=camera).returncode == 0
    rows = logged(camera)
    assert len(rows) == 5
    for row in rows[:1]:
        answer = json.loads(edge("replay", str(row["seq"]), "-c", "box.toml", "--json", cwd=camera).stdout)
        assert answer["same"] is True and answer["scores"] == row["scores"] != {}
    again = device(tmp_path / "again", '{ kind = "replay", path = "../camera/data/lineside.sqlite" }')
    assert edge("run", "-c", "box.toml", "--drain", cwd=again).returncode == 0
    assert [row["scores"] for row in logged(again)] == [row["scores"] for row in rows]


def test_each_way_in_which_a_camera_fails_is_a_deferral_with_its_reason_and_passes(tmp_path: Path) -> None:
    with MjpegCamera() as camera:
        source = f'{{ kind = "camera", url = "{camera.url}", max_gap_s = 0.5, frozen_after_s = 0.5 }}'
        folder = device(tmp_path / "camera", source)
        process = nursery.start("edge", "run", "-c", "box.toml", cwd=folder, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: judged_after(folder, 0), 60, "the first judged frame")
            for word, show in FAILURES.items():
                begun = last_seq(folder)
                camera.plugged, camera.show = word != "unplugged", show
                wait_until(partial(told_after, folder, begun, word), 30, f"a camera that is {word}")
                camera.plugged, camera.show = True, camera_picture
                wait_until(partial(judged_after, folder, last_seq(folder)), 30, f"the camera after it was {word}")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


def test_prediction_server_answers_all_that_it_took_when_it_is_told_to_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    server = device(tmp_path / "server", f'{{ kind = "http", port = {port} }}')
    process = nursery.start("edge", "run", "-c", "box.toml", cwd=server, stderr=subprocess.DEVNULL)
    raw, answers = encoded("PNG", np.full((32, 32, 3), 250, np.uint8)), list[httpx.Response]()
    try:
        wait_until(lambda: _healthy(port), 20, "the server")
        batch = [("file", (f"{number}.png", raw)) for number in range(8)]
        url = f"http://127.0.0.1:{port}/v1/batch"

        def send() -> None:
            with suppress(httpx.ConnectError):  # it came when nobody was taken any more
                answers.append(httpx.post(url, files=batch, verify=NOBODY))

        senders = [threading.Thread(target=send) for _ in range(3)]
        for sender in senders:
            sender.start()
        wait_until(lambda: answers, 20, "the first answer")
        process.send_signal(signal.SIGTERM)
        for sender in senders:
            sender.join(20)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    decided = [decision for answer in answers if answer.status_code == 200 for decision in answer.json()["decisions"]]
    assert {answer.status_code for answer in answers} <= {200, 503}, "taken and decided, or refused whole"
    assert {decision["seq"] for decision in decided} == {row["seq"] for row in logged(server)}
    assert len(decided) % 8 == 0 and all(decision["verdict"] == "pass" for decision in decided)


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.TransportError:
        return False
