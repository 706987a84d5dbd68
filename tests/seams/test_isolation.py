"""What only a child process can promise: crashes, hangs, leaks and deaths stay on their side of the wall."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge.errors import DeadlineError, ModelError
from edge.runtimes import open_session
from edge.runtimes.isolated import IsolatedSession
from edge.wire.manifest import ModelFile, TensorSpec
from tests.long import rounds
from tests.seams.networks import BLACK, BRIGHT, NETWORKS, example, hanging
from tests.waiting import wait_until

LONG_S = 60.0
OPENINGS = rounds(30, 100)


@pytest.fixture
def session() -> Iterator[IsolatedSession]:
    model, spec = hanging()
    opened = IsolatedSession("onnx", model, spec, deadline_s=LONG_S, start_timeout_s=20)
    yield opened
    opened.close()


def _child(session: IsolatedSession) -> psutil.Process:
    assert session.pid is not None
    return psutil.Process(session.pid)


def _later(child: psutil.Process, do: Callable[[], None]) -> threading.Thread:
    """Do something to the child as soon as it is computing."""
    before = child.cpu_times().user

    def run() -> None:
        wait_until(lambda: child.cpu_times().user > before + 0.05, 20, "the child to be computing")
        do()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_child_that_dies_during_an_inference_is_a_model_error_that_names_the_signal(
    session: IsolatedSession, death: signal.Signals
) -> None:
    child = _child(session)
    killer = _later(child, lambda: child.send_signal(death))
    with pytest.raises(ModelError, match=death.name):
        session.infer(BRIGHT)
    killer.join()
    assert not child.is_running()
    assert session.pid is None and session.memory_bytes() == 0
    with pytest.raises(ModelError, match=death.name):
        session.infer(BLACK)


def test_child_that_died_while_nobody_looked_is_a_model_error(session: IsolatedSession) -> None:
    child = _child(session)
    child.kill()
    wait_until(lambda: child.status() == psutil.STATUS_ZOMBIE, 5, "the child to die")
    with pytest.raises(ModelError, match="SIGKILL"):
        session.infer(BLACK)
    assert not child.is_running()


def test_network_that_hangs_misses_the_deadline_and_is_killed() -> None:
    model, spec = hanging()
    session = IsolatedSession("onnx", model, spec, deadline_s=0.3, start_timeout_s=20)
    child = _child(session)
    assert session.infer(BLACK).shape == (2,)
    started = time.monotonic()
    with pytest.raises(DeadlineError, match="deadline"):
        session.infer(BRIGHT)
    assert 0.25 < time.monotonic() - started < 2.0
    assert not child.is_running()
    with pytest.raises(ModelError, match="deadline"):
        session.infer(BLACK)


def test_stopped_child_misses_the_deadline_and_is_killed() -> None:
    case = example("onnx")
    session = IsolatedSession("onnx", case.model, case.spec, deadline_s=0.2, start_timeout_s=20)
    child = _child(session)
    child.suspend()
    with pytest.raises(DeadlineError, match="deadline"):
        session.infer(case.tensors[0])
    assert not child.is_running()


def test_start_that_takes_too_long_leaves_no_child() -> None:
    case = example("onnx")
    with pytest.raises(DeadlineError, match="deadline"):
        IsolatedSession("onnx", case.model, case.spec, deadline_s=1, start_timeout_s=0.001)
    assert not _children()


REFUSED = 6


def test_refused_model_leaves_no_child_and_no_descriptor() -> None:
    case = example("onnx")
    before = 0
    for number in range(1 + REFUSED):
        with pytest.raises(ModelError):
            IsolatedSession("onnx", case.model[:100], case.spec, deadline_s=1, start_timeout_s=20)
        if number == 0:  # the first one also starts what the standard library keeps for shared memory
            before = _descriptors()
    # One left by each would be all of them; threads of tests before this one open one now and then.
    assert not _children() and _descriptors() < before + REFUSED


def test_interpreter_that_cannot_start_is_a_model_error_without_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    case = example("onnx")
    before = _descriptors()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    for _ in range(REFUSED):
        with pytest.raises(ModelError, match="cannot start"):
            IsolatedSession("onnx", case.model, case.spec, deadline_s=1, start_timeout_s=20)
    assert _descriptors() < before + REFUSED


def test_child_that_cannot_import_says_what_python_said(monkeypatch: pytest.MonkeyPatch) -> None:
    case = example("onnx")
    monkeypatch.setattr(sys, "path", ["/nowhere"])
    with pytest.raises(ModelError, match="ModuleNotFoundError: No module named 'edge'"):
        IsolatedSession("onnx", case.model, case.spec, deadline_s=1, start_timeout_s=20)


def test_tensors_larger_than_any_real_network_are_refused_before_memory_is_taken() -> None:
    huge = TensorSpec(name="x", shape=[1, 100_000, 100_000, 3], dtype="uint8")
    spec = example("onnx").spec.model_copy(update={"input": huge})
    with pytest.raises(ModelError, match="at most"):
        IsolatedSession("onnx", b"", spec, deadline_s=1, start_timeout_s=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_to_the_whole_group_do_not_end_the_child(session: IsolatedSession, number: signal.Signals) -> None:
    child = _child(session)
    child.send_signal(number)
    assert session.infer(BLACK).shape == (2,)
    assert os.getpgid(child.pid) != os.getpgid(0)


def test_candidate_runs_at_the_niceness_asked_for() -> None:
    case = example("onnx")
    session = IsolatedSession("onnx", case.model, case.spec, deadline_s=5, start_timeout_s=20, nice=7)
    assert _child(session).nice() == psutil.Process().nice() + 7
    assert np.abs(session.infer(case.tensors[0]) - case.logits[0]).max() <= case.tolerance
    session.close()


def test_calls_leave_the_cores_of_the_calling_thread_as_they_were() -> None:
    case = example("onnx")
    session = IsolatedSession("onnx", case.model, case.spec, deadline_s=0.2, start_timeout_s=20)
    before = os.sched_getaffinity(0)
    session.infer(case.tensors[0])
    assert os.sched_getaffinity(0) == before
    _child(session).suspend()
    with pytest.raises(DeadlineError):
        session.infer(case.tensors[0])
    assert os.sched_getaffinity(0) == before


def test_sandbox_that_forbids_binding_to_a_core_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_pid: int, _cores: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    case = example("onnx")
    session = IsolatedSession("onnx", case.model, case.spec, deadline_s=5, start_timeout_s=20)
    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    for tensor, logits in zip(case.tensors, case.logits, strict=True):
        assert np.abs(session.infer(tensor) - logits).max() <= case.tolerance
    session.close()


def test_session_opened_by_a_thread_that_has_ended_goes_on() -> None:
    case = example("onnx")
    opened: list[IsolatedSession] = []

    def open_it() -> None:
        opened.append(IsolatedSession("onnx", case.model, case.spec, deadline_s=5, start_timeout_s=20))

    thread = threading.Thread(target=open_it)
    thread.start()
    thread.join()
    (session,) = opened
    for tensor, logits in zip(case.tensors, case.logits, strict=True):
        assert np.abs(session.infer(tensor) - logits).max() <= case.tolerance
    session.close()


_DAEMON = """
import sys, threading, time
sys.path.insert(0, {root!r})
from edge.runtimes.isolated import IsolatedSession
from tests.seams.networks import BRIGHT, hanging
model, spec = hanging()
session = IsolatedSession("onnx", model, spec, deadline_s=60, start_timeout_s=20)
print(session.pid, flush=True)
if {busy}:
    session.infer(BRIGHT)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "computing", "stopped"])
def test_child_ends_with_the_daemon_whatever_it_is_doing(state: str) -> None:
    code = _DAEMON.format(root=str(Path(__file__).parents[2]), busy=state == "computing")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        child = psutil.Process(int(daemon.stdout.readline()))
        before = child.cpu_times().user
        if state == "computing":
            wait_until(lambda: child.cpu_times().user > before + 0.05, 20, "the child to be computing")
        if state == "stopped":
            child.suspend()
        daemon.kill()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 5, "the child to end")


_LIGHT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from edge.runtimes.isolated import IsolatedSession
from edge.wire.manifest import ModelFile
spec = ModelFile.model_validate_json(Path({spec!r}).read_text())
session = IsolatedSession({runtime!r}, Path({model!r}).read_bytes(), spec, deadline_s=5, start_timeout_s=20)
engines = [name for name in ("onnxruntime", "ai_edge_litert") if name in sys.modules]
maps = Path(f"/proc/{{session.pid}}/maps").read_text()
heavy = [name for name in ("cv2", "pydantic_core", "_ssl", "PIL") if name in maps]
print(engines, heavy, session.memory_bytes())
session.close()
"""


@pytest.mark.parametrize("runtime", NETWORKS)
def test_daemon_loads_no_engine_and_child_loads_nothing_but_the_engine(runtime: str, tmp_path: Path) -> None:
    case = example(runtime)
    model, spec = tmp_path / "model", tmp_path / "spec"
    model.write_bytes(case.model)
    spec.write_text(case.spec.model_dump_json())
    root = str(Path(__file__).parents[2])
    code = _LIGHT.format(root=root, spec=str(spec), model=str(model), runtime=runtime)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    loaded, _, memory = result.stdout.strip().rpartition(" ")
    assert loaded == "[] []"
    print(f"{runtime}: child of {int(memory) / 1e6:.1f} MB")
    assert 5e6 < int(memory) < 90e6
    assert result.stderr == ""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_openings_leak_neither_descriptors_nor_memory_nor_processes() -> None:
    """Thirty openings, a hundred in the long form: each may leave so few bytes that a leaked page a time is found."""
    case = example("tflite")
    me = psutil.Process()

    def cycle(count: int) -> None:
        for _ in range(count):
            session = IsolatedSession("tflite", case.model, case.spec, deadline_s=5, start_timeout_s=20)
            session.infer(case.tensors[0])
            session.close()

    cycle(5)
    descriptors, memory = _descriptors(), me.memory_info().rss
    cycle(OPENINGS)
    grown = me.memory_info().rss - memory
    print(f"grown by {grown / 1024:.0f} KiB in {OPENINGS} openings")
    assert _descriptors() < descriptors + OPENINGS // 2
    assert not _children()
    assert grown < OPENINGS * 20 * 2**10


def test_time_around_an_inference_is_small() -> None:
    case = example("onnx")
    inline = open_session("onnx", case.model, case.spec)
    isolated = IsolatedSession("onnx", case.model, case.spec, deadline_s=5, start_timeout_s=20)
    times: dict[str, list[float]] = {"inline": [], "process": []}
    for _ in range(20):
        for name, session in (("inline", inline), ("process", isolated)):
            for _ in range(50):
                started = time.perf_counter()
                session.infer(case.tensors[0])
                times[name].append(time.perf_counter() - started)
    isolated.close()
    inline_us, process_us = (float(np.median(times[name])) * 1e6 for name in ("inline", "process"))
    print(f"p50: inline {inline_us:.1f} µs, process {process_us:.1f} µs, between them {process_us - inline_us:.1f} µs")
    assert process_us - inline_us < 500  # 16 µs alone on the machine; the bound only says that nothing polls slowly


def test_idle_child_takes_no_processor_time() -> None:
    case = example("onnx")
    session = IsolatedSession("onnx", case.model, case.spec, deadline_s=5, start_timeout_s=20)
    session.infer(case.tensors[0])
    child = _child(session)
    before = sum(child.cpu_times()[:2])
    switches = child.num_ctx_switches().voluntary
    time.sleep(0.5)  # not a wait for something: what is measured is that nothing happens
    assert sum(child.cpu_times()[:2]) - before <= 0.02
    assert child.num_ctx_switches().voluntary - switches <= 5
    session.close()


def test_spec_without_scale_of_a_quantized_output_is_an_error_in_words() -> None:
    case = example("tflite")
    output = case.spec.output.model_copy(update={"scale": None, "zero_point": None})
    spec: ModelFile = case.spec.model_copy(update={"output": output})
    session = IsolatedSession("tflite", case.model, spec, deadline_s=5, start_timeout_s=20)
    with pytest.raises(ModelError, match="no scale"):
        session.infer(case.tensors[0])
    session.close()


def _descriptors() -> int:
    """How many are open; threads of other tests may still close theirs, so that fewer afterwards are no fault."""
    gc.collect()  # what other tests left open goes now, not in the middle of this one
    return len(list(Path("/proc/self/fd").iterdir()))


def _children() -> list[psutil.Process]:
    """Inference children of this process, zombies included."""
    return [child for child in psutil.Process().children() if _is_inference(child)]


def _is_inference(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE or any("child.py" in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False
