"""The inference child: loads one network, then answers one request after another until the daemon ends.

Started by `isolated.py` as a script with one argument (`protocol.Start` as JSON), never by hand.

Rules:
- It holds numpy and the one runtime, nothing else: its memory is counted against the device.
- It ends with the daemon whatever either of them is doing: the kernel kills it when the daemon's end of the
  life pipe closes. (The parent-death signal of prctl would also fire when only the thread that started it ends.)
- It ignores what a terminal or a service manager sends to the whole group: the daemon ends it in its own time.
- Whatever a runtime raises becomes a packet with words; whatever kills it natively is seen by the daemon.
"""

import fcntl
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from edge.runtimes.interface import Session
    from edge.runtimes.protocol import Start
    from edge.wire.manifest import ModelFile

_OOM_SCORE = 500
"""When memory runs out the kernel takes this process before the daemon, which then defers and says why."""


def main(argument: str) -> None:
    """Serve until the daemon ends."""
    values = json.loads(argument)
    _end_with_daemon(values["life_fd"])
    _behave(values["nice"])
    sys.path[:] = values["path"]
    from edge.runtimes.protocol import start_from

    start = start_from(values)
    control = socket.socket(fileno=start.control_fd)
    session = _open(start, control)
    if session is not None:
        _serve(start, control, session)


def _open(start: "Start", control: socket.socket) -> "Session | None":
    from edge.errors import LinesideError
    from edge.runtimes import open_session
    from edge.runtimes.protocol import READY, failure

    # The runtimes read attributes only; pydantic would cost this process 8 MB and 30 ms.
    spec = cast("ModelFile", json.loads(json.dumps(start.spec), object_hook=lambda fields: SimpleNamespace(**fields)))
    try:
        session = open_session(start.runtime, _model(start), spec, threads=start.threads)
    except LinesideError as error:
        control.send(failure(error))
        return None
    control.send(READY + session.description.encode())
    return session


def _serve(start: "Start", control: socket.socket, session: "Session") -> None:
    import numpy as np

    from edge.errors import LinesideError
    from edge.runtimes.protocol import DONE, failure

    layout = start.layout
    shared = mmap.mmap(start.shared_fd, layout.size_bytes)
    tensor: Any = np.ndarray(layout.input_shape, layout.input_dtype, shared)
    answer: Any = np.ndarray(layout.numbers, np.float32, shared, layout.answer_at)
    while control.recv(1):
        try:
            answer[:] = session.infer(tensor)
            control.send(DONE)
        except LinesideError as error:
            control.send(failure(error))


def _model(start: "Start") -> bytes:
    with mmap.mmap(start.model_fd, start.model_bytes, prot=mmap.PROT_READ) as mapped:
        model = mapped.read()
    os.close(start.model_fd)
    return model


def _end_with_daemon(life_fd: int) -> None:
    fcntl.fcntl(life_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life_fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life_fd, fcntl.F_SETFL, fcntl.fcntl(life_fd, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(life_fd, select.POLLIN)
    if poll.poll(0):
        sys.exit(0)  # it ended before the lines above could arm the signal


def _behave(nice: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash loop must not fill the device's disk
    os.nice(nice)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 (pathlib is 20 ms of the child's start)
            file.write(str(_OOM_SCORE))
    except OSError:
        pass  # a sandbox without /proc: the kernel then chooses by size alone


if __name__ == "__main__":
    main(sys.argv[1])
