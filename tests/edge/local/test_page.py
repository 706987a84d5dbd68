"""The page at the device, asked of a real daemon: state, pictures, answers, metrics, and who may see them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.store import Store
from edge.wire.rows import ANSWERED_EVENT, EventRow
from tests.bundles import LABELS
from tests.clocks import HeldClock
from tests.edge.local.device import BRIGHTNESS, SOUNDS, Running, hearing, running
from tests.waiting import wait_until

TOKEN = "a-token-of-sixteen-and-more"
CHANGE = {"x-lineside": "1"}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("device")) as made:
        yield made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("guarded"), TOKEN) as made:
        yield made


def answers(device: Running) -> list[dict[str, object]]:
    with Store.open_read_only(device.folder / "data" / "lineside.sqlite", clock=HeldClock()) as store:
        rows = store.rows(kind="event", limit=10_000)
    return [row.data for row in rows if isinstance(row, EventRow) and row.name == ANSWERED_EVENT]


def test_state_holds_the_last_decision_and_what_waits(device: Running) -> None:
    state = device.state()
    assert state["last"]["main"]["input"]["name"] == "5.png"
    assert state["reported"]["device"] == "box-1"
    waiting = [row["input"]["name"] for row in state["open"]]
    assert waiting[0] == "5.png" and set(waiting) <= {"2.png", "3.png", "4.png", "5.png"}


def test_kept_picture_comes_as_it_was(device: Running) -> None:
    row = next(row for row in device.state()["open"] if row["input"]["name"] == "4.png")
    answer = device.get(f"/api/inputs/{row['seq']}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.data == (device.folder / "inbox" / "4.png").read_bytes()


def test_picture_that_is_not_kept_is_said(device: Running) -> None:
    assert device.get("/api/inputs/1").status == 404
    assert "not kept" in device.get("/api/inputs/9999").json()["error"]


def test_answer_is_on_record_and_the_part_waits_no_more(device: Running) -> None:
    row = next(row for row in device.state()["open"] if row["input"]["name"] == "2.png")
    assert device.post({"seq": row["seq"], "answer": "divert", "who": "Ada"}, **CHANGE).status == 201
    assert {"decision_seq": row["seq"], "answer": "divert", "reviewer": "Ada"} in answers(device)
    assert row["seq"] not in [other["seq"] for other in device.state()["open"]]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"seq": 1, "answer": "maybe", "who": "Ada"}, "expected one of pass, divert"),
        ({"seq": 1, "answer": "pass", "who": " "}, "expected a name"),
        ({"seq": 9999, "answer": "pass", "who": "Ada"}, "no decision 9999"),
        ({"seq": "1", "answer": "pass", "who": "Ada"}, "expected the number"),
        ([1], "expected a JSON object"),
        (b"rubbish", "expected JSON"),
    ],
)
def test_answer_that_means_nothing_is_refused_with_the_reason(device: Running, document: object, words: str) -> None:
    before = len(answers(device))
    refused = device.post(document, **CHANGE)
    assert refused.status == 422
    assert words in refused.json()["error"]
    assert len(answers(device)) == before


def test_answer_from_a_foreign_page_is_refused(device: Running) -> None:
    assert device.post({"seq": 1, "answer": "pass", "who": "Ada"}).status == 403


def test_foreign_name_of_the_host_is_refused(device: Running) -> None:
    assert device.get("/api/state", host="evil.example").status == 400


def test_prometheus_reads_counts_and_latencies(device: Running) -> None:
    assert device.value('lineside_decisions_total{by="decisions",station="main",value=""}') == 6
    assert device.value('lineside_decisions_total{by="verdict",station="main",value="pass"}') == 1
    assert device.value('lineside_step_milliseconds_bucket{le="+Inf",station="main",step="total"}') == 6
    assert device.value('lineside_serving{model="brightness",station="main",version="1.0.0"}') == 1
    assert device.value("lineside_memory_bytes") > 10e6


def test_prometheus_reads_what_pictures_and_answers_were_like(device: Running) -> None:
    for measure in ("brightness_ratio", "contrast_ratio", "saturation_ratio", "sharpness"):
        assert device.value(f'lineside_input_{measure}_count{{station="main"}}') == 5, "the sixth was no picture"
    assert device.value('lineside_input_brightness_ratio_sum{station="main"}') == pytest.approx(
        sum(BRIGHTNESS) / 255, abs=0.1
    )
    assert device.value('lineside_input_brightness_ratio_bucket{le="0.1",station="main"}') == 1
    assert device.value('lineside_output_confidence_ratio_count{station="main"}') == 5
    labels = [device.value(f'lineside_output_label_ratio{{label="{label}",station="main"}}') for label in LABELS]
    assert sum(labels) == pytest.approx(5 / 6)
    assert device.value('lineside_output_deferred_ratio{station="main"}') == pytest.approx(4 / 6)
    assert "lineside_heard_seconds_total{" not in device.get("/metrics").data.decode(), "it does not hear"


def test_prometheus_reads_the_share_of_speech_of_the_whole_listening_time(tmp_path: Path) -> None:
    with hearing(tmp_path, silence_s=1.4) as device:
        station = '{station="main"}'
        heard_s = device.value(f"lineside_heard_seconds_total{station}")
        speech_s = device.value(f"lineside_heard_speech_seconds_total{station}")
        assert 5.0 <= heard_s <= 6.0, "three times 1.4 s of silence and 0.6 s of a tone"
        assert speech_s == pytest.approx(1.8, abs=0.3)
        assert device.value(f"lineside_heard_speech_ratio{station}") == pytest.approx(speech_s / heard_s, abs=0.01)
        assert device.value(f"lineside_heard_level_dbfs{station}") == pytest.approx(-18.7, abs=1.0)
        assert f"lineside_heard_clipping_ratio{station} 0.0" in device.get("/metrics").data.decode()
        for measure in ("level_dbfs", "clipping_ratio", "speech_ratio", "duration_seconds"):
            every = f'lineside_input_{measure}_bucket{{le="+Inf",station="main"}}'
            assert device.value(every) == SOUNDS, "there is no count and no sum beside levels, which are negative"


def test_what_was_dropped_is_on_the_page_and_in_the_metrics(device: Running) -> None:
    assert "dropped" not in device.state()["reported"]["health"]["extra"]
    counts = [("dropped.confident_inputs", "3"), ("dropped.unsent_inputs", "2"), ("left_out.deferred_inputs", "4")]
    with closing(sqlite3.connect(device.folder / "data" / "lineside.sqlite")) as connection, connection:
        connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", counts)
    words = device.state()["reported"]["health"]["extra"]["dropped"]["words"]
    assert "3 inputs of sure decisions; 2 of them were nowhere else" in words
    assert device.value('lineside_dropped_total{kind="confident_inputs"}') == 3
    assert device.value('lineside_left_out_total{kind="deferred_inputs"}') == 4


def test_health_is_good_while_the_station_turns(device: Running) -> None:
    assert (device.get("/healthz").status, device.get("/healthz").json()) == (
        200,
        {"ok": True, "stuck": [], "trouble": []},
    )


def test_page_forbids_foreign_scripts_and_frames(device: Running) -> None:
    page = device.get("/")
    assert page.status == 200 and b"<title>Lineside</title>" in page.data
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_without_the_token_only_health_is_told(guarded: Running) -> None:
    for path in ("/", "/api/state", "/metrics", "/api/inputs/1", "/api/live/main"):
        assert guarded.get(path).status == 401, path
        assert guarded.get(path, authorization="Bearer wrong-wrong-wrong-wrong").status == 401, path
    assert guarded.get("/healthz").status == 200
    assert guarded.get("/metrics", **guarded.bearer).status == 200


def test_link_with_the_token_opens_the_page_and_leaves_a_cookie(guarded: Running) -> None:
    answer = guarded.get(f"/?token={TOKEN}")
    assert answer.status == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "strict" in cookie.lower()
    assert guarded.get("/", cookie=cookie.split(";")[0]).status == 200


def test_what_lies_outside_of_the_crop_is_neither_shown_nor_kept(tmp_path: Path) -> None:
    crop = "[station.main.crop]\nx = 0.25\ny = 0.5\nwidth = 0.5\nheight = 0.5\n"
    with running(tmp_path, station=crop) as device:
        secret = np.full((40, 40, 3), 128, np.uint8)
        secret[:20] = np.random.default_rng(7).integers(0, 255, (20, 40, 3))
        cv2.imwrite(str(tmp_path / "secret.bmp"), secret)
        (tmp_path / "secret.bmp").rename(tmp_path / "inbox" / "secret.bmp")
        wait_until(lambda: device.state()["last"]["main"]["input"]["name"] == "secret.bmp", 30, "the picture")
        seq = device.state()["last"]["main"]["seq"]
        for path in ("/api/live/main", f"/api/inputs/{seq}"):
            answer = device.get(path)
            shown = cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_COLOR)
            assert answer.headers["content-type"] == "image/png"
            assert shown is not None and np.array_equal(shown, np.full((20, 20, 3), 128, np.uint8))
        row = secret[5].tobytes()[:60]
        assert not any(row in path.read_bytes() for path in (tmp_path / "data").glob("lineside.sqlite*"))


def test_word_that_was_really_said_is_named_and_others_than_the_bundles_are_refused(tmp_path: Path) -> None:
    with hearing(tmp_path) as device:
        state = device.state()
        assert state["words"]["main"][:3] == ["0", "1", "2"]
        seq = state["open"][0]["seq"]
        refused = device.post({"seq": seq, "answer": "accept", "who": "Ada", "label": "twelve"}, **CHANGE)
        assert refused.status == 422 and "label: expected one of 0, 1, 2" in refused.json()["error"]
        assert device.post({"seq": seq, "answer": "accept", "who": "Ada", "label": "7"}, **CHANGE).status == 201
        assert answers(device) == [{"decision_seq": seq, "answer": "accept", "reviewer": "Ada", "label": "7"}]


def test_station_that_inspects_has_no_words_to_name(device: Running) -> None:
    assert device.state()["words"] == {}
    refused = device.post(
        {"seq": device.state()["open"][0]["seq"], "answer": "pass", "who": "Ada", "label": "7"}, **CHANGE
    )
    assert refused.status == 422 and "none: this station's labels are not named" in refused.json()["error"]
