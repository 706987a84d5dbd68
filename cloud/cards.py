"""Makes cards for download: an image or a seed of one device, with its claim made on the way.

Rules:
- The work is done by `lineside-flash`, as a child process: what it knows of disks and images is none of ours, and what
  goes wrong there ends there. The claim goes to it in a file, never on a command line.
- One at a time; others wait, so many at most. A file is kept until it was downloaded whole or its time is over,
  whichever is first: it holds a claim. A new start of the control plane forgets all of them.
- What is asked for is checked before a claim is made; that it was made, and by whom, stands in the audit log.
"""

import json
import logging
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.exc import SQLAlchemyError

from cloud import audit
from cloud.clock import Clock
from cloud.config import CardsConfig
from cloud.enrolment import Enrolment
from cloud.errors import CloudError, InvalidError, NotFoundError, TooManyError, UnavailableError
from cloud.registry import Registry
from cloud.store import CloudStore

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "firmware_configs")
LIST_TIMEOUT_S = 60.0
LIST_KEPT_S = 20.0
"""Asking takes half a second of a core: a page that is drawn again does not ask."""
CLAIM_S = 14 * 86_400.0
"""Cards travel."""
ROOM_BYTES = 2 * 2**30
"""Free on the disk before one is made: an image has 300 MB that are not holes, and must not end what is stored here."""
MAX_WORDS = 600
SYSTEMS = ("trixie", "bookworm", "noble")
"""Stock systems that a seed can be made for."""
ADDRESS = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]{1,200}")

What = Literal["image", "seed"]
State = Literal["waiting", "making", "ready", "failed"]


@dataclass(frozen=True)
class Wish:
    """What somebody asks for."""

    what: What
    profile: str
    site: str
    device: str
    model: str
    version: str
    cloud: str
    """The control plane's address for devices."""
    system: str = SYSTEMS[0]
    """Of a seed: the stock system that takes it in."""


@dataclass(frozen=True)
class Card:
    """One card on its way."""

    id: str
    wish: Wish
    who: str
    asked_at_ms: int
    expires_at_ms: int
    state: State = "waiting"
    words: str = ""
    """Why it failed."""
    size_bytes: int = 0
    fingerprint: str = ""
    """Digest of the seed, as on the label."""

    @property
    def file_name(self) -> str:
        """What the download is called."""
        return f"{self.wish.device}.img.gz" if self.wish.what == "image" else f"{self.wish.device}-seed.img.gz"

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        return {**self.__dict__, "wish": dict(self.wish.__dict__), "file_name": self.file_name}


@dataclass(frozen=True)
class Profile:
    """A kind of device, as `lineside-flash list` shows it."""

    name: str
    title: str
    has_image: bool
    how: str
    """What to do where no image can be made here."""


@dataclass(frozen=True)
class Known:
    """What can be made here."""

    profiles: list[Profile]
    problem: str = ""
    """Why nothing can."""


@dataclass
class _Kept:
    cards: dict[str, Card] = field(default_factory=dict)
    timers: dict[str, threading.Timer] = field(default_factory=dict)


class Cards:
    """Takes wishes, has them made, and hands out what was made. From any thread."""

    def __init__(
        self,
        folder: Path,
        config: CardsConfig,
        store: CloudStore,
        clock: Clock,
        registry: Registry,
        enrolment: Enrolment,
        root: Path,
    ) -> None:
        self._folder = folder
        self._config = config
        self._store = store
        self._clock = clock
        self._registry = registry
        self._enrolment = enrolment
        self._root = root
        self._lock = threading.Lock()
        self._kept = _Kept()
        self._looker: ThreadPoolExecutor | None = None
        self._looking: Future[None] | None = None
        self._found: Known | None = None
        self._seen: tuple[float, list[Profile]] = (0.0, [])
        self._maker: ThreadPoolExecutor | None = None
        shutil.rmtree(folder, ignore_errors=True)

    def known(self) -> Known | None:
        """Return what was found last of what can be made here, without waiting; None as long as nothing was.

        It is looked for anew in a thread of its own, if that is some time ago.
        """
        with self._lock:
            if self._looking is None or (self._looking.done() and time.monotonic() - self._seen[0] > LIST_KEPT_S):
                self._looker = self._looker or ThreadPoolExecutor(1, thread_name_prefix="profiles")
                self._looking = self._looker.submit(self._look)
        return self._found

    def profiles(self) -> list[Profile]:
        """Return the kinds of devices that cards are made for.

        Raises:
            UnavailableError: `lineside-flash` is not there or fails.
        """
        seen_s, found = self._seen
        if found and time.monotonic() - seen_s < LIST_KEPT_S:
            return found
        told = json.loads(self._run(["list", "--json"], LIST_TIMEOUT_S))
        found = [
            Profile(one["name"], one["board"]["title"], one["image"] is not None, one["board"]["how"])
            for one in told["profiles"]
            if one["board"]["boot"] != "none"
        ]
        self._seen = (time.monotonic(), found)
        return found

    def cards(self) -> list[Card]:
        """Return those that are here, newest first."""
        with self._lock:
            return sorted(self._kept.cards.values(), key=lambda card: -card.asked_at_ms)

    def ask(self, wish: Wish, who: str) -> Card:
        """Have a card made; it is ready later.

        Raises:
            InvalidError: something that is asked for is wrong.
            NotFoundError: the model has not been published.
            TooManyError: too many are kept or wait.
            UnavailableError: the disk has no room.
        """
        self._check(wish)
        now_ms = self._clock.now_ms()
        expires_at_ms = now_ms + round(self._config.keep_min * 60_000)
        card = Card(secrets.token_hex(8), wish, who, now_ms, expires_at_ms)
        with self._lock:
            if len(self._kept.cards) >= self._config.max_kept:
                hint = "download or remove one that is ready"
                raise TooManyError(f"{self._config.max_kept} cards are kept or wait here already", hint=hint)
            self._kept.cards[card.id] = card
            self._maker = self._maker or ThreadPoolExecutor(1, thread_name_prefix="cards")
            self._maker.submit(self._make, card)
        return card

    def file(self, card_id: str) -> tuple[Card, Path]:
        """Return a card that is ready, and its file.

        Raises:
            NotFoundError: it is not here (any more), or not ready.
        """
        with self._lock:
            card = self._kept.cards.get(card_id)
        if card is None or card.state != "ready":
            raise NotFoundError("this card is not here", hint="each is downloaded once; have another one made")
        return card, self._place(card_id) / "disk.img"

    def remove(self, card_id: str) -> None:
        """Forget a card and its file; nothing happens if it is not here, or is being made."""
        with self._lock:
            card = self._kept.cards.get(card_id)
            if card is None or card.state in ("waiting", "making"):
                return
            del self._kept.cards[card_id]
            timer = self._kept.timers.pop(card_id, None)
        if timer is not None:
            timer.cancel()
        shutil.rmtree(self._place(card_id), ignore_errors=True)

    def _look(self) -> None:
        try:
            self._found = Known(self.profiles())
        except CloudError as error:
            self._found = Known([], error.for_people())
            self._seen = (time.monotonic(), [])

    def _check(self, wish: Wish) -> None:
        if not ADDRESS.fullmatch(wish.cloud):
            raise InvalidError(f"address: expected one such as https://192.0.2.10:8442, got {wish.cloud[:100]!r}")
        if not wish.site.strip() or re.search(r"[\"\\\x00-\x1f]", wish.site):
            raise InvalidError("site: expected a name without quotes and backslashes")
        if wish.what == "seed" and wish.system not in SYSTEMS:
            raise InvalidError(f"system: expected one of {', '.join(SYSTEMS)}, got {wish.system!r}")
        profile = next((one for one in self.profiles() if one.name == wish.profile), None)
        if profile is None:
            raise InvalidError(f"profile: none is called {wish.profile!r}")
        if wish.what == "image" and not profile.has_image:
            hint = profile.how or f"on this machine: lineside-flash build {wish.profile}"
            raise InvalidError(f"there is no image of {wish.profile} here", hint=hint)
        bundle = self._registry.bundle(wish.model, wish.version)
        if bundle.ref.kind != "model":
            raise InvalidError(f"{wish.model} is an operating system: expected a model that decides")
        self._registry.blobs.path(bundle.ref.digest)
        if shutil.disk_usage(self._folder.parent).free < ROOM_BYTES:
            raise UnavailableError(f"no room for a card: {ROOM_BYTES // 2**30} GB must be free", hint="free disk space")

    def _make(self, card: Card) -> None:
        self._note(replace(card, state="making"))
        place = self._place(card.id)
        try:
            place.mkdir(parents=True)
            told = json.loads(self._run(self._words(card, place), self._config.timeout_s))
            size, fingerprint = (place / "disk.img").stat().st_size, str(told.get("seed", ""))
            made = replace(card, state="ready", size_bytes=size, fingerprint=fingerprint)
            (place / "claim").unlink()
            self._audit(made)
        except (CloudError, OSError, ValueError, SQLAlchemyError) as error:
            log.warning("the card of %s was not made: %s", card.wish.device, error)
            shutil.rmtree(place, ignore_errors=True)
            words = error.for_people() if isinstance(error, CloudError) else str(error)
            made = replace(card, state="failed", words=words[:MAX_WORDS])
        self._note(made)
        timer = threading.Timer(self._config.keep_min * 60, self.remove, [card.id])
        timer.daemon = True
        with self._lock:
            self._kept.timers[card.id] = timer
        timer.start()

    def _words(self, card: Card, place: Path) -> list[str]:
        """Put what the child needs into its folder, the claim last, and return its command."""
        wish = card.wish
        ref = self._registry.bundle(wish.model, wish.version).ref
        bundle = place / f"{wish.model}-{wish.version}.lsb"
        bundle.symlink_to(self._registry.blobs.path(ref.digest).resolve())
        claim = place / "claim"
        claim.touch(0o600)
        made = self._enrolment.create_claim(
            profile=wish.profile, site=wish.site, device=wish.device, ttl_s=CLAIM_S, who=card.who
        )
        claim.write_text(made.token)
        common = ["--to", str(place / "disk.img"), "--device-name", wish.device, "--site", wish.site]
        common += ["--cloud", wish.cloud, "--claim", f"@{claim}", "--bundle", str(bundle)]
        common += ["--root", str(self._root)] if self._root.is_file() else []
        if wish.what == "image":
            return ["write", wish.profile, *common]
        return ["inject", "--profile", wish.profile, "--system", wish.system, *common]

    def _run(self, words: list[str], timeout_s: float) -> str:
        command = [*(self._config.command or COMMAND), *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"lineside-flash did not end within {timeout_s:g} s") from error
        except OSError as error:
            raise UnavailableError(f"lineside-flash cannot be started: {error}", hint="[cards] command") from error
        if done.returncode:
            said = done.stderr.strip().removeprefix("lineside-flash: ") or f"it ended with {done.returncode}"
            raise UnavailableError(f"lineside-flash: {said[-MAX_WORDS:]}")
        return done.stdout

    def _audit(self, card: Card) -> None:
        wish = card.wish
        data = {"device": wish.device, "profile": wish.profile, "site": wish.site, "what": wish.what}
        data |= {"model": wish.model, "version": wish.version, "fingerprint": card.fingerprint}
        with self._store.write() as connection:
            audit.record(connection, at_ms=self._clock.now_ms(), who=card.who, what="card_made", data=data)

    def _note(self, card: Card) -> None:
        with self._lock:
            self._kept.cards[card.id] = card

    def _place(self, card_id: str) -> Path:
        return self._folder / card_id
