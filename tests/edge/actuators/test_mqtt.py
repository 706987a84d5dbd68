"""A topic on a real broker: actions arrive as JSON, a dead broker is noticed and found again, the will is heard."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.actuators import open_actuator
from edge.actuators.interface import Actuator, Place
from edge.errors import ActuatorError
from tests.brokers import KINDS, TestBroker, broker
from tests.clocks import HeldClock
from tests.seams.test_actuators import decision
from tests.waiting import wait_until

TOPIC = "plant/press-4"


class Listener:
    """A plant's own client: what it was told, and whether the box is there."""

    def __init__(self, running: TestBroker) -> None:
        self.told: list[dict[str, Any]] = []
        self.online: list[bool] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="plant")
        self._client.on_connect = lambda client, *_: client.subscribe([(TOPIC, 1), (f"{TOPIC}/status", 1)])
        subscribed: list[int] = []
        self._client.on_subscribe = lambda _client, _data, mid, *_: subscribed.append(mid)
        self._client.on_message = self._received
        self._client.connect("127.0.0.1", running.port)
        self._client.loop_start()
        wait_until(lambda: subscribed, 10, "the subscription")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _received(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        document = json.loads(message.payload)
        if message.topic == TOPIC:
            self.told.append(document)
        else:
            self.online.append(document["online"])


@pytest.fixture(params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestBroker]:
    with broker(request.param, tmp_path / "broker") as made:
        yield made


@pytest.fixture
def listen(running: TestBroker) -> Iterator[Callable[[], Listener]]:
    made: list[Listener] = []

    def start() -> Listener:
        made.append(Listener(running))
        return made[-1]

    yield start
    for listener in made:
        listener.close()


def wired(running: TestBroker, **changes: Any) -> Actuator:
    settings = {"host": "127.0.0.1", "port": running.port, "topic": TOPIC, "timeout_ms": 3000, **changes}
    return open_actuator("mqtt", settings, clock=HeldClock(), place=Place("box-1", "press"))


def test_action_arrives_as_json(running: TestBroker, listen: Callable[[], Listener]) -> None:
    listener, actuator = listen(), wired(running)
    assert actuator.act(decision(7, label="scratch")) is None
    actuator.stop("5 rejects in a row")
    actuator.release()
    wait_until(lambda: len(listener.told) == 3, 10, "three messages")
    actuator.close()
    first = listener.told[0]
    assert (first["decision"], first["verdict"], first["action"], first["label"]) == (7, "divert", "divert", "scratch")
    assert (first["device"], first["station"]) == ("box-1", "press")
    assert [told["action"] for told in listener.told[1:]] == ["stop", "release"]


def test_plant_sees_whether_the_box_is_there(running: TestBroker, listen: Callable[[], Listener]) -> None:
    actuator, listener = wired(running), listen()
    wait_until(lambda: listener.online == [True], 10, "the retained word that the box is there")
    actuator.close()
    wait_until(lambda: listener.online[-1] is False, 10, "the goodbye")


def test_broker_that_goes_away_is_noticed_and_found_again(running: TestBroker) -> None:
    actuator = wired(running, timeout_ms=500)
    actuator.act(decision(1))
    running.stop(signal.SIGKILL)
    wait_until(lambda: actuator.look() is not None, 10, "the loss")
    with pytest.raises(ActuatorError, match=r"broker 127\.0\.0\.1"):
        actuator.act(decision(2))
    running.start()
    wait_until(lambda: actuator.look() is None, 20, "the way back")
    actuator.act(decision(3))
    actuator.close()


def test_broker_that_hangs_is_an_error_in_time_and_nothing_arrives_late(
    running: TestBroker, listen: Callable[[], Listener]
) -> None:
    listener, actuator = listen(), wired(running, timeout_ms=300)
    running.pause()
    with pytest.raises(ActuatorError, match="no acknowledgement within 300 ms"):
        for seq in range(1, 50):  # a process with many threads does not stop at once
            actuator.act(decision(seq))
    running.resume()
    wait_until(lambda: actuator.look() is None, 20, "the way back")
    actuator.act(decision(99))
    wait_until(lambda: listener.told and listener.told[-1]["decision"] == 99, 10, "the next action")
    # What the broker's socket had taken in before it hung is there once; nothing is sent again.
    told = [entry["decision"] for entry in listener.told]
    assert sorted(set(told)) == told
    actuator.close()


def test_broker_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    with broker("nats", tmp_path / "broker", start=False) as later:
        actuator = wired(later, timeout_ms=200)
        with pytest.raises(ActuatorError, match="refused"):
            actuator.act(decision(1))
        later.start()
        wait_until(lambda: actuator.look() is None, 20, "the connection")
        actuator.act(decision(2))
        actuator.close()
