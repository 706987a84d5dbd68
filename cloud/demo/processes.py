"""Child processes of the demo: started as a person would start them, their output in files, all ended at the end.

Rules:
- Every child ends with its parent: in order when it is asked to, by the kernel's hand when it is killed.
- A child that ends by itself is noticed, and named with the last lines of its output.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud.broker import die_with
from cloud.errors import ConfigError, UnavailableError

STOP_S = 15.0
"""Longest wait for a child to end in order before it is killed."""


@contextlib.asynccontextmanager
async def not_left_behind(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """Kill a child that still runs when its waiter is left, because the demo is stopped or something else failed."""
    try:
        yield
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@dataclass
class Processes:
    """The children. Belongs to one event loop."""

    logs: Path
    cwd: Path
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, name: str, module: str, *arguments: str) -> None:
        """Start a command that keeps running."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *arguments,
                cwd=self.cwd,
                stdout=log,
                stderr=log,
                preexec_fn=die_with(os.getpid()),
            )

    async def call(self, module: str, *arguments: str) -> Any:
        """Run a command to its end and return the JSON that it prints.

        Raises:
            ConfigError: it failed; the message is its own.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            cwd=self.cwd,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with not_left_behind(process):
            out, err = await process.communicate()
        if process.returncode:
            raise ConfigError(f"{module} {' '.join(arguments)}: {(err or out).decode(errors='replace').strip()}")
        return json.loads(out) if out.strip() else None

    def log(self, name: str) -> Path:
        """Return where this child's output goes."""
        return self.logs / f"{name}.log"

    def check(self) -> None:
        """Make sure that every child still runs.

        Raises:
            UnavailableError: one has ended.
        """
        for name, process in self.running.items():
            if process.returncode is not None:
                last = self.log(name).read_text(errors="replace").splitlines()[-12:]
                raise UnavailableError(f"{name} ended with exit code {process.returncode}:\n  " + "\n  ".join(last))

    async def stop_all(self) -> None:
        """End every child in order, devices before the control plane; kill what does not end."""
        for name in reversed(list(self.running)):
            await self._stop(self.running.pop(name))

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()
