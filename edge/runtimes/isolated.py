"""Runs a session in a child process, so that a crash, a hang or a leak of the engine stays out of the daemon.

Rules:
- The daemon never imports the engine; model bytes and tensors go through shared memory, one small packet each
  way is the signal.
- A child that dies or misses the deadline is a `ModelError`; it is killed, and the session stays unusable: what
  comes next (a new child, the last good bundle) is for the caller to decide.
- The child never outlives the daemon (see `child.py`).
- During a call, both run on one core. The daemon only waits, so a second core gives nothing, and waking an
  idle one costs more than all the rest: 12 µs against 95 µs, measured on a virtual machine.
"""

import ctypes
import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge.errors import DeadlineError, ModelError
from edge.runtimes.protocol import DONE, MAX_MESSAGE_BYTES, READY, RUN, Layout, Start, error_in, layout_of
from edge.runtimes.tensors import check_input, outputs_of

if TYPE_CHECKING:
    from edge.wire.manifest import ModelFile

_LAST_WORDS_BYTES = 16 * 1024
"""How much the child may say on stderr; kept in memory, the first of it is dropped once it has started."""
_REAP_S = 5.0
"""SIGKILL ends a process at once unless it hangs in a driver; then it is left to the kernel."""


class IsolatedSession:
    """A session whose engine runs in a child process. Used by one thread at a time."""

    def __init__(
        self,
        runtime: str,
        model: bytes,
        spec: "ModelFile",
        *,
        threads: int = 1,
        deadline_s: float,
        start_timeout_s: float,
        nice: int = 0,
    ) -> None:
        """Start the child and wait until it has loaded the model.

        Args:
            runtime: a key of `RUNTIMES`.
            model: bytes of the model file.
            spec: what the manifest says about that file.
            threads: threads of the engine for one inference.
            deadline_s: the longest that one inference may take.
            start_timeout_s: the longest that starting and loading may take.
            nice: added to the child's niceness: above 0 for a candidate that must not slow down what decides.

        Raises:
            ModelError: the engine does not take this file, crashed on it, or took too long.
            ConfigError: the runtime is unknown or its library is not installed.
        """
        answers = [output.answer_shape for output in outputs_of(spec)]
        layout = layout_of(list(spec.input.shape), spec.input.dtype, answers)
        self._shape, self._dtype = layout.input_shape, np.dtype(layout.input_dtype)
        self.deadline_s = deadline_s
        self._child: _Child | None = _Child(runtime, model, spec, layout, threads, nice)
        self._ended = ""
        self._same_core = _SameCore(self._child.pid) if threads == 1 and nice == 0 else None
        try:
            self.description = self._started(runtime, start_timeout_s)
        except BaseException:
            self.close()
            raise

    def infer(self, tensor: NDArray[np.generic]) -> NDArray[np.float32]:
        child = self._child
        if child is None:
            raise ModelError(self._ended or "the session is closed")
        check_input(tensor, self._shape, self._dtype)
        np.copyto(child.tensor, tensor)
        if self._same_core is None:
            packet = self._exchange(child)
        else:
            with self._same_core.hold():
                packet = self._exchange(child)
        if packet != DONE:
            raise error_in(packet)
        return child.answer.copy()

    def memory_bytes(self) -> int:
        return self._child.memory_bytes() if self._child else 0

    @property
    def pid(self) -> int | None:
        """The child's process id, None once it is gone."""
        return self._child.pid if self._child else None

    def close(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _exchange(self, child: "_Child") -> bytes:
        try:
            child.control.settimeout(self.deadline_s)
            child.control.send(RUN)
            packet = child.control.recv(MAX_MESSAGE_BYTES)
        except TimeoutError as error:
            words = f"deadline: no answer within {self.deadline_s:g} s; the inference process was killed"
            self._give_up(words)
            raise DeadlineError(words, hint="the model is too slow for this device, or the engine hangs") from error
        except (BrokenPipeError, ConnectionResetError):
            packet = b""
        if not packet:
            self._give_up(f"the inference process ended during an inference: {child.why_it_ended()}")
            raise ModelError(self._ended)
        return packet

    def _started(self, runtime: str, timeout_s: float) -> str:
        assert self._child is not None
        self._child.control.settimeout(timeout_s)
        try:
            packet = self._child.control.recv(MAX_MESSAGE_BYTES)
        except TimeoutError as error:
            raise DeadlineError(f"deadline: {runtime} did not load the model within {timeout_s:g} s") from error
        except ConnectionResetError:
            packet = b""
        if not packet:
            raise ModelError(f"the inference process ended while loading the model: {self._child.why_it_ended()}")
        if packet[:1] != READY:
            raise error_in(packet)
        self._child.forget_words()
        return f"{packet[1:].decode()}, isolated"

    def _give_up(self, why: str) -> None:
        self._ended = why
        self.close()


class _Child:
    """The process with its descriptors and shared memory."""

    def __init__(self, runtime: str, model: bytes, spec: "ModelFile", layout: Layout, threads: int, nice: int) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        life_theirs, self._life = os.pipe2(os.O_CLOEXEC)
        self._words_fd = _bounded_file("lineside-words", _LAST_WORDS_BYTES)
        model_fd = _file_of("lineside-model", model)
        shared_fd = _bounded_file("lineside-tensors", layout.size_bytes)
        handed_over = (theirs.fileno(), life_theirs, model_fd, shared_fd)
        try:
            self._shared = mmap.mmap(shared_fd, layout.size_bytes)
            self.tensor: NDArray[np.generic] = np.ndarray(layout.input_shape, layout.input_dtype, self._shared)
            self.answer: NDArray[np.float32] = np.ndarray(layout.numbers, np.float32, self._shared, layout.answer_at)
            start = Start(
                path=[str(Path(entry).absolute()) for entry in sys.path],
                runtime=runtime,
                spec=spec.model_dump(mode="json"),
                threads=threads,
                nice=nice,
                model_fd=model_fd,
                model_bytes=len(model),
                shared_fd=shared_fd,
                layout=layout,
                control_fd=theirs.fileno(),
                life_fd=life_theirs,
            )
            self._process = _spawn(start, handed_over, self._words_fd)
        except OSError as error:
            self._close_ours()
            raise ModelError(f"cannot start the inference process: {error}", retry=True) from error
        finally:
            theirs.close()
            for fd in handed_over[1:]:
                os.close(fd)
        self.pid = self._process.pid

    def memory_bytes(self) -> int:
        """Return the child's proportional set size: shared pages are counted in part."""
        try:
            text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))

    def why_it_ended(self) -> str:
        """Return how a child that has closed its end came to its end, in words."""
        try:
            code = self._process.wait(timeout=_REAP_S)
        except subprocess.TimeoutExpired:
            return "it closed its connection without ending"
        how = f"exit code {code}"
        if code < 0:
            name = signal.Signals(-code).name
            how = f"killed by {name}" + (" (out of memory, or by someone)" if name == "SIGKILL" else "")
        words = self._words()
        return f"{how}; it said: {words}" if words else how

    def forget_words(self) -> None:
        """Drop what it said so far, so that there is room for what it says when it dies."""
        os.pwrite(self._words_fd, bytes(_LAST_WORDS_BYTES), 0)
        os.lseek(self._words_fd, 0, os.SEEK_SET)

    def end(self) -> None:
        """Kill and reap it, and give back all that it held."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, which then gives its memory back
            self._process.wait(timeout=_REAP_S)
        self._close_ours()

    def _close_ours(self) -> None:
        self.control.close()
        os.close(self._life)
        os.close(self._words_fd)
        if hasattr(self, "tensor"):
            del self.tensor, self.answer  # views keep the memory open
            self._shared.close()

    def _words(self) -> str:
        text = os.pread(self._words_fd, _LAST_WORDS_BYTES, 0).rstrip(b"\0").decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""


class _SameCore:
    """Keeps the calling thread and the child on the core that the thread is on, for the length of a call."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._core_of_child = -1
        self._usable = True
        self._libc = ctypes.CDLL(None)

    @contextmanager
    def hold(self) -> Iterator[None]:
        before = self._bind()
        try:
            yield
        finally:
            if before is not None:
                with suppress(OSError):  # those cores were taken from us meanwhile: the kernel has chosen others
                    os.sched_setaffinity(0, before)

    def _bind(self) -> set[int] | None:
        """Return the cores that the thread may run on otherwise, or None where binding is not allowed."""
        if not self._usable:
            return None
        try:
            before = os.sched_getaffinity(0)
            core = int(self._libc.sched_getcpu())
            if core != self._core_of_child:
                os.sched_setaffinity(self._pid, {core})
                self._core_of_child = core
            os.sched_setaffinity(0, {core})
        except ProcessLookupError:
            return None  # the child has just died, which the call will find
        except OSError:
            self._usable = False  # a sandbox forbids it; calls are slower, nothing else changes
            return None
        return before


def _spawn(start: Start, fds: tuple[int, ...], words_fd: int) -> "subprocess.Popen[bytes]":
    # -I: no PYTHON* variables and no user packages; -S: no `site`, the search path comes from here.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("child.py")), start.to_json()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=words_fd,
        pass_fds=fds,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        process_group=0,
    )


def _file_of(name: str, content: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    return fd


def _bounded_file(name: str, size_bytes: int) -> int:
    """Return a memory file that cannot grow: writing beyond its end fails."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size_bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return fd
