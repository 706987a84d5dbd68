"""Keeps what was tried: one row per run in `runs.sqlite` beside the models.

Rules:
- A run is written when it begins and again when it ends; while it runs it holds a lock beside the file, which ends
  with its process, so that one that was killed is shown as killed and not as running.
- A row holds code commit, dataset digest, settings, results, resources and artefacts; nothing of it is changed later.
- The file is plain SQLite; several runs may write at once.
"""

import fcntl
import json
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from edge.errors import ConfigError

FILE = "runs.sqlite"
_JSON = ("settings", "results", "resources", "artefacts")
_TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    command TEXT NOT NULL,
    state TEXT NOT NULL,
    began_at TEXT NOT NULL,
    ended_at TEXT,
    code TEXT NOT NULL,
    dataset_digest TEXT NOT NULL,
    settings TEXT NOT NULL,
    results TEXT NOT NULL DEFAULT '{}',
    resources TEXT NOT NULL DEFAULT '{}',
    artefacts TEXT NOT NULL DEFAULT '{}'
)
"""


@dataclass(frozen=True)
class Run:
    """One run, as it stands in the file."""

    id: str
    name: str
    version: str
    command: str
    state: str
    began_at: str
    ended_at: str | None
    code: str
    dataset_digest: str
    settings: dict[str, Any]
    results: dict[str, Any]
    resources: dict[str, Any]
    artefacts: dict[str, Any]


class Runs:
    """The runs of one folder."""

    def __init__(self, path: Path) -> None:
        """Open `path` (a file, or a folder that holds `runs.sqlite`); it is made on the first write."""
        self.path = path / FILE if path.suffix != ".sqlite" else path
        self._held: dict[str, IO[str]] = {}

    def begin(
        self, *, name: str, version: str, command: str, code: str, dataset_digest: str, settings: dict[str, Any]
    ) -> str:
        """Write down that a run begins; return its id."""
        number = uuid.uuid4().hex[:8]
        values = (
            number,
            name,
            version,
            command,
            "running",
            _now(),
            code,
            dataset_digest,
            json.dumps(settings, default=str),
        )
        with closing(self._open()) as database, database:
            self._hold(number)
            database.execute(
                "INSERT INTO runs (id, name, version, command, state, began_at, code, dataset_digest, settings) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
        return number

    def end(
        self,
        run: str,
        state: str,
        *,
        results: dict[str, Any] | None = None,
        resources: dict[str, Any] | None = None,
        artefacts: dict[str, Any] | None = None,
    ) -> None:
        """Write down how a run ended: done, failed or interrupted."""
        texts = [json.dumps(value or {}, default=str) for value in (results, resources, artefacts)]
        with closing(self._open()) as database, database:
            database.execute(
                "UPDATE runs SET state = ?, ended_at = ?, results = ?, resources = ?, artefacts = ? WHERE id = ?",
                (state, _now(), *texts, run),
            )
        if run in self._held:
            self._held.pop(run).close()
            self._lock(run).unlink(missing_ok=True)

    def list(self, *, name: str | None = None, state: str | None = None, dataset: str | None = None) -> list[Run]:
        """Return the runs, newest first, that fit all that is given; `dataset` is the beginning of a digest."""
        if not self.path.exists():
            return []
        with closing(self._open()) as database:
            rows = database.execute("SELECT * FROM runs ORDER BY began_at DESC, rowid DESC").fetchall()
        found = [self._seen(_run(row)) for row in rows]
        return [
            run
            for run in found
            if (name is None or run.name == name)
            and (state is None or run.state == state)
            and (dataset is None or run.dataset_digest.startswith(dataset))
        ]

    def get(self, run: str) -> Run:
        """Return a run by the beginning of its id.

        Raises:
            ConfigError: there is none, or several.
        """
        found = [item for item in self.list() if item.id.startswith(run)]
        if len(found) != 1:
            raise ConfigError(
                f"{self.path}: {'several runs begin' if found else 'no run begins'} with {run!r}",
                hint="`lineside-export runs list` shows them",
            )
        return found[0]

    def _lock(self, run: str) -> Path:
        return self.path.with_name(f".run-{run}.lock")

    def _hold(self, run: str) -> None:
        file = self._lock(run).open("w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held[run] = file

    def _seen(self, run: Run) -> Run:
        """Return a run as killed if it says that it runs and nobody holds its lock."""
        if run.state != "running":
            return run
        try:
            with self._lock(run.id).open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return run
        except OSError:
            pass  # the lock is gone, with the machine or by hand
        return replace(run, state="killed")

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=30)
        database.row_factory = sqlite3.Row
        database.execute(_TABLE)
        return database


def differences(a: Run, b: Run) -> list[tuple[str, str, str]]:
    """Return (what, a's, b's) for everything that differs between two runs, numbers and settings alike."""
    left, right = _flat(a), _flat(b)
    names = [*left, *(name for name in right if name not in left)]
    return [(n, left.get(n, "–"), right.get(n, "–")) for n in names if left.get(n, "–") != right.get(n, "–")]


def _flat(run: Run) -> dict[str, str]:
    found = {
        name: str(getattr(run, name)) for name in ("name", "version", "state", "code", "dataset_digest", "began_at")
    }

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix}.{key}", inner)
        else:
            found[prefix] = str(value)

    for name in _JSON:
        add(name, getattr(run, name))
    return found


def _run(row: sqlite3.Row) -> Run:
    values = {name: json.loads(row[name]) if name in _JSON else row[name] for name in row.keys()}  # noqa: SIM118 - a Row
    return Run(**values)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
