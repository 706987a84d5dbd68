"""Runs an image as a machine would: QEMU with UEFI, a serial console in a file, a cable that can be pulled.

Rules:
- KVM is used only where it proves itself: on some machines its device is there and no guest runs. The probe starts one.
- The guest's network is QEMU's own: nothing of it is reachable from outside, and this machine's loopback is 10.0.2.2.
- A guest ends with the program that started it.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from firmware_configs.errors import BuildError
from firmware_configs.image.debian import need_tools
from firmware_configs.profile import Architecture
from firmware_configs.prove.writelog import SECTOR

HOST_FROM_GUEST = "10.0.2.2"
"""This machine's loopback, as QEMU's own network shows it to the guest."""
PROBE_S = 20.0
PROBE_SECTOR = (b"\xb0\x10\xe6\xf4\xf4").ljust(510, b"\0") + b"\x55\xaa" + bytes(2**20)
"""A boot sector: mov al, 0x10; out 0xf4, al; hlt. QEMU ends with 2 · 0x10 + 1."""
PROBE_CODE = 33
POLL_S = 0.1
HANDED_OVER = "BdsDxe: starting Boot"
"""What EDK2 says on the console."""
MEMORY_MB = 1024

Accelerator = Literal["kvm", "tcg"]


@dataclass(frozen=True)
class Machine:
    """What QEMU stands for."""

    program: str
    package: str
    machine: str
    cpu: str
    firmware: str
    variables: str
    firmware_package: str


MACHINES: dict[Architecture, Machine] = {
    # The least that wheels ask for, and of the maker whose processors need no separate page tables against Meltdown:
    # emulated, those double the time of a start, and no processor that is sold now needs them.
    "amd64": Machine(
        "qemu-system-x86_64", "qemu-system-x86", "q35", "Nehalem,vendor=AuthenticAMD",
        "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf",
    ),
    "arm64": Machine(
        "qemu-system-aarch64", "qemu-system-arm", "virt", "cortex-a72",
        "/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd", "qemu-efi-aarch64",
    ),
}  # fmt: skip


def missing(architecture: Architecture) -> list[str]:
    """Return the Debian packages that are needed to run a machine and are not there."""
    machine = MACHINES[architecture]
    found = [] if shutil.which(machine.program) else [machine.package]
    return found if Path(machine.firmware).exists() else [*found, machine.firmware_package]


def accelerator(architecture: Architecture) -> Accelerator:
    """Return kvm if a guest really runs with it, tcg otherwise."""
    if architecture != "amd64" or not Path("/dev/kvm").exists():
        return "tcg"
    with tempfile.NamedTemporaryFile(prefix="lineside-probe-") as file:
        file.write(PROBE_SECTOR)
        file.flush()
        command = [
            MACHINES["amd64"].program, "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-display", "none",
            "-net", "none", "-drive", f"file={file.name},format=raw", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=PROBE_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return "tcg"
    return "kvm" if done.returncode == PROBE_CODE else "tcg"


class Patience:
    """How long to wait yet for a machine that has to share its processors: counted as if it had them alone."""

    def __init__(self, limit_s: float) -> None:
        self.left_s = limit_s
        self._last: tuple[float, tuple[int, int]] | None = None

    def spend(self, now_s: float, scheduled: tuple[int, int]) -> None:
        """Count the time since the last call.

        Args:
            now_s: a clock that runs evenly.
            scheduled: for how long its threads have run and waited for a processor since they began.
        """
        if self._last is not None:
            before_s, before = self._last
            ran, waited = max(0, scheduled[0] - before[0]), max(0, scheduled[1] - before[1])
            self.left_s -= (now_s - before_s) * (ran / (ran + waited) if waited else 1.0)
        self._last = (now_s, scheduled)


class Guest:
    """One machine that was switched on with its cable pulled."""

    def __init__(
        self,
        image: Path,
        folder: Path,
        architecture: Architecture,
        accel: Accelerator,
        clock: str | None = None,
        write_log: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            image: its disk.
            folder: for the console's log, the firmware's variables and the monitor's socket.
            architecture: which machine.
            accel: what `accelerator` said.
            clock: what its clock shows, such as 2001-01-01; None for the right time.
            write_log: a file to which every write and flush of its disk is noted (`writelog`); None for none.

        Raises:
            BuildError: QEMU or the firmware is not installed, or QEMU ends at once.
        """
        machine = MACHINES[architecture]
        need_tools({machine.program: machine.package})
        self.console = folder / "console.log"
        self._monitor = folder / "monitor"
        variables = folder / "variables.fd"
        if not variables.exists():
            shutil.copy(machine.variables, variables)
        with self.console.open("ab") as log:
            self._process = subprocess.Popen(
                _command(machine, _disk(image, write_log), variables, self._monitor, accel, clock),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._socket = self._connect()
        self.ask("qmp_capabilities")
        self.cable(plugged=False)
        self.ask("cont")
        self.began_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.pull_the_plug()

    @property
    def running(self) -> bool:
        """Whether it is on."""
        return self._process.poll() is None

    @property
    def since_s(self) -> float:
        """Seconds since it was switched on, of this machine's clock."""
        return time.monotonic() - self.began_s

    @property
    def processor_s(self) -> float:
        """Seconds of processor time that it has taken of this machine: a figure that others' work hardly changes."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def starts(self) -> int:
        """How often the firmware has handed over to a boot loader: once for each start of the machine."""
        return self.text().count(HANDED_OVER)

    def cable(self, *, plugged: bool) -> None:
        """Plug the network's cable in, or pull it."""
        self.ask("set_link", name="n0", up=plugged)

    def pull_the_plug(self) -> None:
        """Take its power away."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def text(self) -> str:
        """Return what its console has shown."""
        return self.console.read_text(errors="replace")

    def wait(self, until: Callable[[], Any], timeout_s: float, what: str) -> Any:
        """Return what `until` gives as soon as it is true.

        Args:
            until: asked again and again.
            timeout_s: the longest that it may take a machine with processors of its own: time in which this one was
                kept waiting for them does not count.
            what: is waited for, in words.

        Raises:
            BuildError: it is not in time, or the machine is off; the end of the console is in the message.
        """
        patience, began_s = Patience(timeout_s), time.monotonic()
        while not (found := until()):
            patience.spend(time.monotonic(), self._scheduled())
            if not self.running or patience.left_s <= 0:
                gone_s = time.monotonic() - began_s
                why = f"not within {timeout_s:.0f} s, of {gone_s:.0f} s" if self.running else "the machine went off"
                shown = "\n  ".join(self.text().splitlines()[-25:])
                raise BuildError(f"{what}: {why}; its console shows at last:\n  {shown}")
            time.sleep(POLL_S)
        return found

    def ask(self, command: str, **arguments: Any) -> Any:
        """Give QEMU a command (QMP) and return its answer."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self._lines.readline() or b'{"error": "gone"}')
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise BuildError(f"QEMU refuses {command}: {answer['error']}")

    def _scheduled(self) -> tuple[int, int]:
        """Return for how long its threads have run, and for how long they have waited for a processor; nanoseconds."""
        ran = waited = 0
        for path in Path(f"/proc/{self._process.pid}/task").glob("*/schedstat"):
            try:
                fields = path.read_text().split()
            except OSError:  # a thread that has ended
                continue
            ran, waited = ran + int(fields[0]), waited + int(fields[1])
        return ran, waited

    def _connect(self) -> socket.socket:
        way = socket.socket(socket.AF_UNIX)
        way.settimeout(60)
        deadline = time.monotonic() + 60
        while True:
            try:
                way.connect(str(self._monitor))
                break
            except OSError as error:
                if not self.running or time.monotonic() > deadline:
                    raise BuildError(f"QEMU does not start: {self.text()[-400:]}") from error
                time.sleep(POLL_S)
        self._lines = way.makefile("rb")
        return way


def _disk(image: Path, write_log: Path | None) -> list[str]:
    if write_log is None:
        return [
            "-drive", f"file={image},if=none,id=d0,format=raw,discard=unmap",
            "-device", "virtio-blk-pci,drive=d0,bootindex=0",
        ]  # fmt: skip
    write_log.write_bytes(b"")
    return [
        "-blockdev", f"driver=file,filename={image},node-name=f0,discard=unmap",
        "-blockdev", f"driver=file,filename={write_log},node-name=l0",
        "-blockdev", f"driver=blklogwrites,node-name=d0,file=f0,log=l0,log-sector-size={SECTOR}",
        # As a plain card is: nothing is written by saying that it is zero, which would fill the log with a whole disk.
        # Requests are not merged: the log adds two pieces to each, and one of 1,024 is refused then.
        "-device", "virtio-blk-pci,drive=d0,bootindex=0,discard=off,write-zeroes=off,request-merging=off",
    ]  # fmt: skip


def _command(
    machine: Machine, disk: list[str], variables: Path, monitor: Path, accel: Accelerator, clock: str | None
) -> list[str]:
    return [
        # The kernel ends it when the program that started it does, however that was.
        "setpriv", "--pdeathsig", "KILL", machine.program,
        "-machine", machine.machine, "-accel", "kvm" if accel == "kvm" else "tcg,thread=multi",
        "-cpu", "host" if accel == "kvm" else machine.cpu, "-smp", "2", "-m", str(MEMORY_MB), "-nodefaults", "-display",
        "none", "-rtc", f"base={clock or 'utc'}", "-S", "-serial", "stdio",
        "-qmp", f"unix:{monitor},server=on,wait=off",
        "-drive", f"if=pflash,format=raw,readonly=on,file={machine.firmware}",
        "-drive", f"if=pflash,format=raw,file={variables}",
        *disk,
        "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile=", "-device", "virtio-rng-pci",
    ]  # fmt: skip
