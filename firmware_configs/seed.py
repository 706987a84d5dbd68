"""Turns what a person says about one device into the files that its card carries: the seed.

Rules:
- Pure: values in, files out. The configuration is checked by the daemon's own reader before anything is written.
- The private key is not among them: the device makes it. The claim is a file of its own, so that it can be wiped.
- Every file is named with its SHA-256; the same words give the same seed, and its digest is the seed's name.
"""

import hashlib
import json
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from edge.config import load_config
from edge.errors import ConfigError as DeviceConfigError
from edge.wire.base import NAME_PATTERN
from firmware_configs.device.firstboot import CLAIM_FILE, CLAIM_PLACE, CONFIG_FILE, SEED_FILE, SSH_FOLDER
from firmware_configs.errors import ConfigError
from firmware_configs.profile import Profile

TOKEN = re.compile(r"[A-Za-z0-9_.~-]{8,200}")
ADDRESS = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(/[A-Za-z0-9._~/-]*)?")
SITE = re.compile(r"[^\"\\\x00-\x1f]{1,64}")
SSH_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]+( .*)?")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".wav")
MAX_SEED_BYTES = 512 * 2**20
"""What the boot partition may carry besides kernels."""


@dataclass(frozen=True)
class Wanted:
    """What a person says about one device."""

    device: str
    site: str
    cloud: str | None = None
    claim: str | None = None
    model: str | None = None
    stations: str | None = None
    """Everything of the configuration but [device] and [cloud], as TOML; None for one that watches a folder."""
    root: bytes | None = None
    """TUF root that new bundles are trusted by."""
    bundles: dict[str, bytes] = field(default_factory=dict)
    """Content by file name."""
    inputs: dict[str, bytes] = field(default_factory=dict)
    """Pictures to begin with, by file name."""
    ssh_keys: tuple[str, ...] = ()
    wifi: tuple[str, str] | None = None
    """Name and passphrase of the network."""


@dataclass(frozen=True)
class Seed:
    """The files, by their path in the seed's folder on the boot partition."""

    identity: str
    """SHA-256 over all files: another seed is another installation."""
    files: dict[str, bytes]


def make_seed(profile: Profile, wanted: Wanted) -> Seed:
    """Return the seed of a device.

    Raises:
        ConfigError: something that was said is wrong; the message lists all of it.
    """
    mistakes = _mistakes(profile, wanted)
    if mistakes:
        raise ConfigError("\n".join([f"{len(mistakes)} mistake(s)", *(f"  {text}" for text in mistakes)]))
    config = configuration(profile, wanted)
    _check(config)
    placed = _placed(wanted)
    listed = {name: {"sha256": hashlib.sha256(content).hexdigest(), "to": to} for name, (to, content) in placed.items()}
    body = {"format": 1, "device": wanted.device, "profile": profile.name, "files": listed, "config": _digest(config)}
    identity = _digest(json.dumps([body, _digest(wanted.claim or "")], sort_keys=True))
    seed = json.dumps({"id": identity, **body}, indent=1, sort_keys=True) + "\n"
    files = {name: content for name, (_, content) in placed.items()}
    files |= {SEED_FILE: seed.encode(), CONFIG_FILE: config.encode()}
    if wanted.claim is not None:
        files[CLAIM_FILE] = f"{wanted.claim}\n".encode()
    return Seed(identity, files)


def configuration(profile: Profile, wanted: Wanted) -> str:
    """Return the device's TOML file, without the claim."""
    device = [
        "[device]", f'name = "{wanted.device}"', f'profile = "{profile.name}"', f'site = "{wanted.site}"',
        'data = "data"', f"cores = {profile.budget.cores}", "",
    ]  # fmt: skip
    cloud = [CLAIM_PLACE.strip(), f'url = "{wanted.cloud}"'] if wanted.cloud else []
    cloud += ['root = "root.json"'] if wanted.cloud and wanted.root is not None else []
    stations = wanted.stations if wanted.stations is not None else _usual_stations(profile, wanted)
    return "\n".join([*device, *cloud, "", *_system(profile, stations), stations.strip(), ""])


def _system(profile: Profile, stations: str) -> list[str]:
    """Return the table that says how the system is updated, unless the person's own says it."""
    own = any(line.strip().startswith("[os]") for line in stations.splitlines())
    return ["[os]", 'slots = "systemd-boot"', ""] if profile.board.boot == "uefi" and not own else []


def _usual_stations(profile: Profile, wanted: Wanted) -> str:
    bundle = next(iter(sorted(wanted.bundles)), None)
    lines = [
        "[store]", 'durability = "power"', f"max_bytes = {profile.budget.record_mb * 2**20}",
        f"max_input_bytes = {profile.budget.record_mb * 2**19}", "",
        "[probation]", f"max_memory_bytes = {profile.budget.model_memory_mb * 2**20}", "",
        "[station.main]", f'model = "{wanted.model}"', *([f'bundle = "{bundle}"'] if bundle else []),
        f"threads = {profile.budget.threads}", f"load_s = {profile.budget.load_s:g}", "",
        "[station.main.source]", 'kind = "folder"', 'path = "inbox"', "watch = true", "",
        "[station.main.actuator]", 'kind = "log"', 'path = "actions.jsonl"',
    ]  # fmt: skip
    return "\n".join(lines)


def _placed(wanted: Wanted) -> dict[str, tuple[str, bytes]]:
    """Return, by name in the seed, where a file goes below the daemon's folder, and its content."""
    placed = {name: (name, content) for name, content in wanted.bundles.items()}
    placed |= {f"inbox/{name}": (f"inbox/{name}", content) for name, content in wanted.inputs.items()}
    if wanted.root is not None:
        placed["root.json"] = ("root.json", wanted.root)
    if wanted.ssh_keys:
        placed["authorized_keys"] = (
            f"../{SSH_FOLDER}/authorized_keys",
            "".join(f"{k}\n" for k in wanted.ssh_keys).encode(),
        )
    if wanted.wifi is not None:
        placed["wifi.conf"] = ("../os/wifi.conf", _supplicant(*wanted.wifi).encode())
    return placed


def _mistakes(profile: Profile, wanted: Wanted) -> list[str]:
    found = []
    if not re.fullmatch(NAME_PATTERN, wanted.device):
        found.append(f"--device-name: expected lower case, digits, - and _, at most 63, got {wanted.device!r}")
    if not SITE.fullmatch(wanted.site):
        found.append(f"--site: expected at most 64 characters without quotes, got {wanted.site!r}")
    if wanted.cloud is not None and not ADDRESS.fullmatch(wanted.cloud):
        found.append(f"--cloud: expected an address such as https://192.0.2.10:8442, got {wanted.cloud!r}")
    if (wanted.cloud is None) != (wanted.claim is None):
        found.append("--claim and --cloud: expected both, or none for a device that works alone")
    if wanted.claim is not None and not TOKEN.fullmatch(wanted.claim):
        found.append("--claim: this is no token of `lineside-cloud devices claim`")
    if wanted.root is not None and wanted.cloud is None:
        found.append("--root: without --cloud nobody sends new bundles")
    if wanted.stations is None and wanted.model is None:
        found.append("--bundle, --model or --stations: one is needed, so that there is something to decide")
    if wanted.wifi is not None and not (profile.os and profile.os.wifi):
        found.append(
            f"--wifi: the image of {profile.name} has no drivers for it; say wifi = true in a profile of your own"
        )
    if wanted.wifi is not None and not (1 <= len(wanted.wifi[0]) <= 32 and 8 <= len(wanted.wifi[1]) <= 63):
        found.append("--wifi: expected NAME:PASSPHRASE with 1–32 and 8–63 characters")
    found += [f"--ssh-key: {key[:40]!r} is no public key" for key in wanted.ssh_keys if not SSH_KEY.fullmatch(key)]
    names = [*wanted.bundles, *wanted.inputs]
    found += [f"{name!r}: a name with characters that the boot partition does not take" for name in names if _odd(name)]
    size = sum(len(content) for content in [*wanted.bundles.values(), *wanted.inputs.values()])
    if size > MAX_SEED_BYTES:
        found.append(
            f"bundles and inputs are {size / 1e6:.0f} MB together; expected at most {MAX_SEED_BYTES / 1e6:.0f}"
        )
    return found


def _check(config: str) -> None:
    """Read the configuration as the device will."""
    with tempfile.TemporaryDirectory(prefix="lineside-flash-") as folder:
        path = Path(folder) / CONFIG_FILE
        path.write_text(config)
        try:
            load_config(path)
        except DeviceConfigError as error:
            words = str(error).replace(str(path), "the device's configuration")
            raise ConfigError(words, hint="look at --stations") from error


def _supplicant(name: str, passphrase: str) -> str:
    """Return wpa_supplicant's configuration; the name in hexadecimal, because any byte may be in it."""
    quoted = passphrase.replace("\\", "\\\\").replace('"', '\\"')
    return f'update_config=0\nnetwork={{\n\tssid={name.encode().hex()}\n\tpsk="{quoted}"\n}}\n'


def _odd(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._ -]{1,120}", name) is None or name in (SEED_FILE, CLAIM_FILE, CONFIG_FILE)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
