"""Starts the training of a model again: on drift, on enough new labels, or because somebody asks; once for each cause.

| state    | what it means                              | after a crash there                                     |
|----------|--------------------------------------------|---------------------------------------------------------|
| waiting  | the cause and its dataset version are kept | it is started by the next look                          |
| starting | it is being started                        | a command is started unless its folder says it was;     |
|          |                                            | of a webhook nobody knows, so it failed                 |
| running  | it was started                             | the folder tells how it ended; the command goes on      |
| finished | it ended well, or its product is here      |                                                         |
| failed   | it ended otherwise, with the reason        |                                                         |

Rules:
- A cause is kept under a name that is unique in the database, so two looks, or two control planes, start one.
- Of several copies one claims the start, in the row itself, and it alone starts the command, now or after a crash: its
  folder knows whether that was done. If it is not heard of for an hour, the retraining failed; nobody starts it again.
- A drift lasts from the first station of the model that drifts to the last one: it is one cause, however many move.
- Labels are counted from the dataset version of the retraining before.
- The product comes back by publishing a bundle of that model whose lineage names the dataset version (`dataset`).
"""

import asyncio
import logging
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from cloud import audit, tables
from cloud.alerts.channels import post
from cloud.alerts.rules import Retraining
from cloud.alerts.states import retry_after_s
from cloud.blobs import write_durably
from cloud.clock import Clock
from cloud.errors import CloudError, ConfigError, InvalidError, NotFoundError
from cloud.retraining import runner
from cloud.retraining.datasets import Datasets, labelled
from cloud.retraining.tables import dataset_versions, drift_episodes, retrainings
from cloud.seat import Seat
from cloud.store import CloudStore, insert_ignore, upsert
from cloud.telemetry.tables import drift_states

log = logging.getLogger(__name__)

LOOK_S = 10.0
IDLE_FACTOR = 20.0
WHO = "retraining"
"""The name under which causes act by themselves."""
WEBHOOK_TIMEOUT_S = 30.0
MAX_ATTEMPTS = 15
"""Of a webhook that nobody answers at."""
SEEN_EVERY_MS = 60_000
LOST_MS = 3_600_000
"""Longer than a machine takes to come back."""
OWNER_FILE = "owner"
LINEAGE_KEYS = ("dataset", "dataset_version", "dataset_digest")


class Retrainings:
    """Keeps causes, starts commands, sees what comes back. One look at a time."""

    def __init__(
        self,
        store: CloudStore,
        clock: Clock,
        datasets: Datasets,
        wanted: list[Retraining],
        folder: Path,
        *,
        inputs: Path | str,
        url: str = "",
    ) -> None:
        """Take it on.

        Args:
            store, clock: of the control plane.
            datasets: where versions are made and kept.
            wanted: what is trained again, how and when.
            folder: of this copy's runs.
            inputs: where commands find pictures and sounds: a folder, or a bucket's URL.
            url: where commands reach us.
        """
        self._store = store
        self._clock = clock
        self.datasets = datasets
        self._wanted = {one.model: one for one in wanted}
        self._folder = folder
        self._inputs = inputs
        self.url = url
        """Where commands reach us."""
        self._children: list[subprocess.Popen[bytes]] = []

    async def run(self, seat: Seat) -> None:
        """Look until cancelled, while this copy has the seat. Commands that run then go on."""
        while True:
            before_s = self._clock.monotonic_s()
            try:
                await asyncio.to_thread(self.look if seat.is_ours else self.look_after)
            except (CloudError, SQLAlchemyError, OSError):
                log.exception("retraining: a look failed; the next one tries again")
            await asyncio.sleep(max(LOOK_S, IDLE_FACTOR * (self._clock.monotonic_s() - before_s)))

    def look(self) -> None:
        """Keep new causes, start what waits, see what has ended."""
        for wanted in self._wanted.values():
            self._note_causes(wanted)
        self.look_after()
        for row in self.rows(states=("starting", "running")):
            self._give_up_if_lost(row)
        self._see_products()
        for row in reversed(self.rows(states=("waiting",))):
            self._start_if_due(row)

    def look_after(self) -> None:
        """See what has become of the runs that this copy has started; every copy does."""
        self._children = [child for child in self._children if child.poll() is None]
        for row in self.rows(states=("starting", "running")):
            if row["owner"] in (None, self._own()):
                self._see(row)

    def ask(self, model: str, *, who: str, reason: str, key: str) -> dict[str, Any]:
        """Ask for a retraining by hand; the same key again asks for nothing new.

        Raises:
            NotFoundError: nothing says how this model is trained.
            InvalidError: without a reason or a key, or without a single label.
        """
        if model not in self._wanted:
            raise NotFoundError(f"nothing says how {model!r} is trained", hint="add a [[retrain]] to the watch file")
        if not reason.strip() or not key.strip():
            raise InvalidError("expected a reason and a key")
        cause = f"hand:{model}:{key}"[:200]
        if self._of_cause(cause) is None and not self._note(model, "hand", cause, reason, who, least=1):
            raise InvalidError(
                f"nobody has answered any decision of {model} yet", hint="there is nothing to learn from"
            )
        found = self._of_cause(cause)
        assert found is not None
        return found

    def rows(self, *, states: tuple[str, ...] | None = None, last: int = 200) -> list[dict[str, Any]]:
        """Return the retrainings, newest first."""
        query = select(retrainings).order_by(retrainings.c.id.desc()).limit(last)
        query = query if states is None else query.where(retrainings.c.state.in_(states))
        with self._store.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _note_causes(self, wanted: Retraining) -> None:
        if wanted.on_drift and (number := self._drift_episode(wanted.model)) is not None:
            reason = f"the inputs or answers of {wanted.model} have drifted"
            self._note(wanted.model, "drift", f"drift:{wanted.model}:{number}", reason, WHO, least=wanted.min_labels)
        if wanted.on_labels is not None:
            with self._store.read() as connection:
                base, rows = _last_of(connection, wanted.model)
                new = labelled(connection, wanted.model) - rows
            if new >= wanted.on_labels:
                reason = f"{new} new reviewed labels of {wanted.model}"
                cause = f"labels:{wanted.model}:{base}"
                self._note(wanted.model, "labels", cause, reason, WHO, least=wanted.min_labels)

    def _drift_episode(self, model: str) -> int | None:
        """Return the number of the drift that stands now, or None for none."""
        c, e = drift_states.c, drift_episodes.c
        with self._store.write() as connection:
            drifts = connection.execute(select(c.device).where(c.model == model, c.drifting.is_(True))).first()
            row = connection.execute(select(drift_episodes).where(e.model == model)).one_or_none()
            number = (row.number if row else 0) + (1 if drifts and not (row and row.open) else 0)
            if drifts or row:
                upsert(connection, drift_episodes, {"model": model, "number": number, "open": drifts is not None})
        return number if drifts else None

    def _note(self, model: str, kind: str, cause: str, reason: str, who: str, *, least: int) -> bool:
        """Keep a cause with its dataset version unless it is kept; return whether it is."""
        if self._of_cause(cause) is not None:
            return True
        with self._store.read() as connection:
            if labelled(connection, model) < least:
                return False
        version = self.datasets.export(model, who=who)
        now_ms = self._clock.now_ms()
        row = {"model": model, "cause": cause, "kind": kind, "reason": reason[:2000], "who": who[:64]}
        row |= {"dataset": version.digest, "state": "waiting", "error": ""}
        with self._store.write() as connection:
            more = {"created_ms": now_ms, "attempts": 0}
            if insert_ignore(connection, retrainings, [{**row, **more}]):
                about = {"model": model, "cause": cause, "dataset": version.digest}
                audit.record(connection, at_ms=now_ms, who=who, what="retraining_asked", why=reason, data=about)
        return True

    def _start_if_due(self, row: dict[str, Any]) -> None:
        wanted, now_ms = self._wanted.get(row["model"]), self._clock.now_ms()
        if wanted is None or (row["next_ms"] or 0) > now_ms:
            return
        if not self.datasets.blobs.has(row["dataset"]):
            self._end(row, "failed", "its dataset version is in another copy's folder; with copies, set store.blobs")
            return
        if not self._take(row, wanted, now_ms):
            return
        if wanted.command is not None:
            self._spawn(row, wanted.command)
            self._set(row, state="running")
        else:
            self._call(row, wanted, now_ms)

    def _take(self, row: dict[str, Any], wanted: Retraining, now_ms: int) -> bool:
        """Mark a retraining as being started, unless another of its model runs or has just begun."""
        c = retrainings.c
        with self._store.write() as connection:
            busy = select(c.id).where(c.model == row["model"], c.state.in_(("starting", "running")))
            newest = connection.execute(select(func.max(c.started_ms)).where(c.model == row["model"])).scalar()
            resting = newest is not None and now_ms - newest < wanted.rest_s * 1000
            if (resting and not row["attempts"]) or connection.execute(busy).first() is not None:
                return False
            mine = (c.id == row["id"], c.state == "waiting")
            taken = {"state": "starting", "started_ms": now_ms, "attempts": row["attempts"] + 1}
            taken |= {"owner": self._own(), "seen_ms": now_ms}
            return connection.execute(retrainings.update().where(*mine).values(**taken)).rowcount == 1

    def _spawn(self, row: dict[str, Any], command: list[str]) -> None:
        folder = self._folder / str(row["id"])
        folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "LINESIDE_RETRAINING": str(row["id"]),
            "LINESIDE_MODEL": row["model"],
            "LINESIDE_REASON": row["reason"],
            "LINESIDE_DATASET": str(self.datasets.blobs.path(row["dataset"])),
            "LINESIDE_DATASET_DIGEST": row["dataset"],
            "LINESIDE_INPUTS": str(self._inputs),
            "LINESIDE_CLOUD": self.url,
        }
        python = [sys.executable, "-m", "cloud.retraining.runner", str(folder), "--"]
        # A session of its own, so that it outlives us.
        self._children.append(subprocess.Popen([*python, *command], env=environment, start_new_session=True))
        log.warning("retraining %d of %s was started: %s", row["id"], row["model"], row["reason"])

    def _call(self, row: dict[str, Any], wanted: Retraining, now_ms: int) -> None:
        assert wanted.url is not None
        assert wanted.secret_file is not None
        names = ("id", "model", "kind", "cause", "reason", "dataset")
        document = {name: row[name] for name in names} | {
            "dataset_url": f"{self.url}/v1/datasets/{row['dataset']}",
            "what": "retraining",
        }
        number = f"retraining-{row['id']}"
        try:
            post(wanted.url, wanted.secret_file, document, number=number, now_s=now_ms // 1000,
                 timeout_s=WEBHOOK_TIMEOUT_S)  # fmt: skip
            self._set(row, state="running")
        except (httpx.ConnectError, ConfigError) as error:  # nobody has heard it
            attempts = row["attempts"] + 1
            if attempts >= MAX_ATTEMPTS:
                self._end(row, "failed", f"given up: {error}")
            else:
                again = now_ms + int(1000 * retry_after_s(attempts))
                self._set(row, state="waiting", next_ms=again, error=str(error)[:500])
        except httpx.HTTPStatusError as error:
            self._end(row, "failed", f"{wanted.url} answered {error.response.status_code}")
        except httpx.HTTPError as error:
            self._end(row, "failed", f"it is not known whether {wanted.url} heard it: {type(error).__name__}: {error}")

    def _own(self) -> str:
        """Return the name of this copy's folder, made once."""
        path = self._folder / OWNER_FILE
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            write_durably(path, secrets.token_hex(16).encode())
        return path.read_text("ascii")

    def _give_up_if_lost(self, row: dict[str, Any]) -> None:
        wanted, away_ms = self._wanted.get(row["model"]), self._clock.now_ms() - (row["seen_ms"] or 0)
        asked = wanted is not None and wanted.command is None and row["state"] == "running"  # it runs somewhere else
        if row["owner"] in (None, self._own()) or asked or away_ms < LOST_MS:
            return
        why = "the copy that started it has not been heard of for an hour"
        self._end(row, "failed", f"{why}; see whether it runs there, then start it by hand")

    def _see(self, row: dict[str, Any]) -> None:
        wanted = self._wanted.get(row["model"])
        if self._clock.now_ms() - (row["seen_ms"] or 0) >= SEEN_EVERY_MS:
            self._set(row, owner=self._own(), seen_ms=self._clock.now_ms())
        if wanted is not None and wanted.command is None:
            if row["state"] == "starting":
                self._end(row, "failed", "the control plane stopped while it asked; start it by hand if it was not")
            return
        seen = runner.progress(self._folder / str(row["id"]))
        if seen.state == "not_started" and wanted is not None and wanted.command is not None:
            if row["state"] == "starting":  # we were stopped before: the folder makes sure that it runs once
                self._spawn(row, wanted.command)
                self._set(row, state="running")
            elif not self._children:
                self._spawn(row, wanted.command)
        elif seen.state == "ended":
            good = seen.code == 0
            log_file = self._folder / str(row["id"]) / runner.LOG
            self._end(row, "finished" if good else "failed", "" if good else f"exit code {seen.code}; see {log_file}")
        elif seen.state == "lost":
            self._end(row, "failed", "it ended without saying how: killed, or the machine went down")

    def _see_products(self) -> None:
        """Note bundles that came of a retraining: candidates like any other, with a lineage."""
        c, b = retrainings.c, tables.bundles.c
        for row in self.rows(states=("running", "finished", "failed")):
            if row["candidate"] is not None:
                continue
            with self._store.read() as connection:
                query = select(b.digest, b.manifest["lineage"].label("lineage")).where(
                    b.name == row["model"], b.published_at_ms >= row["created_ms"]
                )
                bundles = connection.execute(query.order_by(b.published_at_ms)).all()
            digest = next((one.digest for one in bundles if _names(one.lineage, row["dataset"])), None)
            if digest is None:
                continue
            now_ms = self._clock.now_ms()
            wanted = self._wanted.get(row["model"])
            over = row["state"] == "running" and (wanted is None or wanted.command is None)
            values = {"candidate": digest} | ({"state": "finished", "ended_ms": now_ms} if over else {})
            with self._store.write() as connection:
                connection.execute(retrainings.update().where(c.id == row["id"]).values(**values))
                about = {"retraining": row["id"], "model": row["model"], "bundle": digest, "dataset": row["dataset"]}
                audit.record(connection, at_ms=now_ms, who=WHO, what="retraining_gave_candidate", data=about)

    def _end(self, row: dict[str, Any], state: str, error: str) -> None:
        now_ms = self._clock.now_ms()
        with self._store.write() as connection:
            values = {"state": state, "ended_ms": now_ms, "error": error[:2000]}
            connection.execute(retrainings.update().where(retrainings.c.id == row["id"]).values(**values))
            about = {"retraining": row["id"], "model": row["model"]}
            audit.record(connection, at_ms=now_ms, who=WHO, what=f"retraining_{state}", why=error, data=about)
        log.warning("retraining %d of %s: %s %s", row["id"], row["model"], state, error)

    def _set(self, row: dict[str, Any], **values: Any) -> None:
        with self._store.write() as connection:
            connection.execute(retrainings.update().where(retrainings.c.id == row["id"]).values(**values))

    def _of_cause(self, cause: str) -> dict[str, Any] | None:
        with self._store.read() as connection:
            row = connection.execute(select(retrainings).where(retrainings.c.cause == cause)).mappings().one_or_none()
        return None if row is None else dict(row)


def _last_of(connection: Connection, model: str) -> tuple[int, int]:
    """Return the newest retraining of a model and the rows of its dataset; zeros for none."""
    c, v = retrainings.c, dataset_versions.c
    query = select(c.id, v.rows).join(dataset_versions, v.digest == c.dataset).where(c.model == model)
    row = connection.execute(query.order_by(c.id.desc()).limit(1)).one_or_none()
    return (0, 0) if row is None else (row.id, row.rows)


def _names(lineage: Any, dataset: str) -> bool:
    return isinstance(lineage, dict) and any(lineage.get(key) == dataset for key in LINEAGE_KEYS)
