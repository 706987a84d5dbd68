"""Starts our programs again and again without loading them again: a process that has loaded one divides itself.

A device or a control plane takes longer to load its code than to come up, and a run of the suite starts hundreds.
What runs is what the command runs, in a process of its own with its own folder, environment and files; kills, signals
and exit codes are real. Left to a fresh process is what looks at loading itself or at memory.

Rules:
- The nursery has one thread and runs nothing of a program before it divides; it refuses to divide otherwise.
- It ends with the test run, however that ends, and kills what it started and is still running.
- Randomness is its own in every process: `random` seeds itself anew, all else asks the system.
"""

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    "edge": ("edge.__main__", "edge.commands.run", "edge.daemon", "edge.cloudside"),
    "cloud": ("cloud.__main__", "cloud.commands.serve", "cloud.server"),
}
"""What is loaded for each; the first module has `main`."""
MAX_BYTES, MAX_TOLD_BYTES = 2**18, 2**24
LOAD_S = 120.0


class Born:
    """A program that runs: what tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, control: socket.socket, stdout: IO[bytes] | None) -> None:
        self.pid, self.stdout = pid, stdout
        self.returncode: int | None = None
        self._control = control

    def poll(self) -> int | None:
        """Return how it ended, None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; return its exit code, or minus the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it where it stands."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def _look(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._control], [], [], timeout_s)[0]:
            said = self._control.recv(64)
            self.returncode = int(said) if said else -signal.SIGKILL  # the nursery itself is gone, and all with it
            self._control.close()
        return self.returncode


def start(
    program: str,
    *arguments: str,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
) -> Born:
    """Start `lineside-PROGRAM ARGUMENTS`.

    Args:
        program: a key of `PROGRAMS`.
        arguments: what a person would type after the name.
        cwd: its folder, this one's unless said.
        env: its whole environment, this one's unless said.
        stdin: a file that it reads; nothing unless said.
        stdout: a file that it writes to, or `subprocess.PIPE`; this one's unless said.
        stderr: a file that it writes to; this one's unless said.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe() if stdout == subprocess.PIPE else (-1, -1)
    null = os.open(os.devnull, os.O_RDWR)
    files = [_descriptor(stdin, null), _descriptor(stdout, 1, writing, null=null), _descriptor(stderr, 2, null=null)]
    order = {"arguments": arguments, "cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env)}
    try:
        socket.send_fds(_nursery(program), [json.dumps(order).encode()], [*files, theirs.fileno()])
    finally:
        theirs.close()
        os.close(null)
        if writing != -1:
            os.close(writing)
    return Born(int(ours.recv(64)), ours, os.fdopen(reading, "rb", buffering=0) if reading != -1 else None)


def run(program: str, *arguments: str, cwd: Path | None = None, timeout_s: float) -> "subprocess.CompletedProcess[str]":
    """Run it to its end; return its exit code and what it wrote.

    Raises:
        subprocess.TimeoutExpired: it had to be killed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        born = start(program, *arguments, cwd=cwd, stdout=out, stderr=err)
        try:
            code = born.wait(timeout_s)
        finally:
            born.kill()
        told = [os.pread(file.fileno(), MAX_TOLD_BYTES, 0).decode() for file in (out, err)]
    return subprocess.CompletedProcess([program, *arguments], code, *told)


def _descriptor(file: Any, default: int, pipe: int = -1, *, null: int = -1) -> int:
    if file is None:
        return default
    if file == subprocess.PIPE:
        return pipe
    if file == subprocess.DEVNULL:
        return null
    return int(file if isinstance(file, int) else file.fileno())


@cache
def _nursery(program: str) -> socket.socket:
    """Return the way to the one of this test process, started when it is first asked."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.nursery", program, str(theirs.fileno())]
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # more threads would not come along
    process = subprocess.Popen(command, cwd=ROOT, env=alone, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    ours.settimeout(LOAD_S)
    ours.recv(64)

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class _Mother:
    """The process that has loaded a program and divides itself."""

    def __init__(self, program: str, orders: socket.socket) -> None:
        self._orders = orders
        self._children: dict[int, socket.socket] = {}
        modules = [importlib.import_module(name) for name in PROGRAMS[program]]
        gc.freeze()  # nobody's collector goes through what all of them share
        self._program, self._main = modules[0].__file__, modules[0].main

    def run(self) -> None:
        """Serve until the test process is gone."""
        woken, waker = socket.socketpair()
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._orders.send(b"ready")
        while True:
            ready = select.select([self._orders, woken], [], [])[0]
            if woken in ready:
                woken.recv(4096)
            self._reap()
            if self._orders in ready:
                data, files, _, _ = socket.recv_fds(self._orders, MAX_BYTES, 4)
                if not data:
                    break
                self._divide(json.loads(data), files)
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)

    def _divide(self, order: dict[str, Any], files: list[int]) -> None:
        threads = os.listdir("/proc/self/task")  # noqa: PTH208
        assert len(threads) == 1, "a thread that is not there after the division may hold a lock"
        told = socket.socket(fileno=files.pop())
        pid = os.fork()
        if pid == 0:
            told.close()
            self._be(order, files)
        told.send(str(pid).encode())
        self._children[pid] = told
        for file in files:
            os.close(file)

    def _be(self, order: dict[str, Any], files: list[int]) -> NoReturn:
        """Become the program."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number, file in enumerate(files):
                os.dup2(file, number)
            os.closerange(3, 1024)
            os.chdir(order["cwd"])
            os.environ.clear()
            os.environ.update(order["env"])
            sys.argv = [str(self._program), *order["arguments"]]
            self._main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except KeyboardInterrupt:
            code = 130
        except BaseException:  # noqa: BLE001 (what the interpreter would do)
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            told = self._children.pop(pid)
            with suppress(OSError):
                told.send(str(os.waitstatus_to_exitcode(status)).encode())
            told.close()


def main() -> None:
    """Be a nursery: `python -m tests.nursery PROGRAM DESCRIPTOR`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the test process ends it
    _Mother(sys.argv[1], socket.socket(fileno=int(sys.argv[2]))).run()


if __name__ == "__main__":
    main()
