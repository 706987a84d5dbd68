"""Raw inputs that the device keeps for people and for replay, and which of them wait to be sent.

Rules:
- Once per content: two decisions on the same bytes share one input.
- Each input has its keepers: which station keeps it, since when, and what for. It goes with the last of them.
- Without their consent, sound that waits is held back, and waits again when consent is given.
- An input that the control plane refuses again and again is put aside, never tried for ever and never dropped for it.
"""

import json
from collections.abc import Collection, Iterable
from typing import NamedTuple

from edge.connection import Connection
from edge.wear import KeptFor

NO_CONSENT = "no consent: those who are heard have not agreed that sound is sent"
"""Why an input is put aside that goes on as soon as consent is given."""


class Upload(NamedTuple):
    """A kept input that waits to be sent."""

    digest: str
    media_type: str
    size_bytes: int
    tries: int


class KeptInputs:
    """The part of the store that holds inputs; shares its connection and its rules."""

    def __init__(self, connection: Connection, max_refusals: int) -> None:
        self._c = connection
        self._max_refusals = max_refusals

    def keep(
        self, digest: str, data: bytes, media_type: str, at_ms: int, *, station: str, kind: KeptFor, upload: bool
    ) -> None:
        """Keep an input for a station, once per content; to be called inside a transaction."""
        self._c.execute(
            "INSERT INTO inputs (digest, media_type, size_bytes, kept_at_ms, bytes) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            (digest, media_type, len(data), at_ms, data),
        )
        self._c.execute(
            "INSERT INTO keepers (digest, station, kind, kept_at_ms) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "kept_at_ms = max(kept_at_ms, excluded.kept_at_ms), "
            "kind = CASE WHEN 'deferred_inputs' IN (kind, excluded.kind) THEN 'deferred_inputs' "
            "WHEN 'disagreement_inputs' IN (kind, excluded.kind) THEN 'disagreement_inputs' ELSE kind END",
            (digest, station, kind, at_ms),
        )
        if upload:
            self._c.execute(
                "INSERT INTO uploads (digest) SELECT digest FROM inputs WHERE digest = ? AND NOT uploaded "
                "ON CONFLICT DO NOTHING",
                (digest,),
            )

    def get(self, digest: str) -> tuple[bytes, str] | None:
        """Return the raw bytes and media type of a kept input, or None if it is not kept (any more)."""
        found = self._c.all("SELECT bytes, media_type FROM inputs WHERE digest = ?", digest)
        return (found[0][0], found[0][1]) if found else None

    def before(self, at_ms: int, station: str | None = None) -> list[str]:
        """Return the digests of what was kept for the first time before a moment; by any station or one."""
        found = self._c.all(
            "SELECT DISTINCT digest FROM inputs JOIN keepers USING (digest) "
            "WHERE inputs.kept_at_ms < ?1 AND (?2 IS NULL OR station = ?2)",
            at_ms,
            station,
        )
        return [digest for (digest,) in found]

    def erase(self, digests: Iterable[str]) -> list[str]:
        """Drop these inputs; return those that were there. To be called inside a transaction.

        Their bytes are overwritten if the connection's `secure_delete` is on.
        """
        return [digest for digest in digests if self._erase(digest)]

    def hold_sound(self, agreed: Collection[str]) -> int:
        """Hold back waiting sound that no station keeps which may send it, and let the other go on; return how much
        is held back.

        Args:
            agreed: stations at which those who are heard have agreed.

        Raises:
            StoreError: nothing changed.
        """
        names = json.dumps(list(agreed))
        sound = (
            "SELECT digest FROM inputs WHERE media_type LIKE 'audio/%' AND digest {} (SELECT digest FROM keepers "
            "WHERE station IN (SELECT value FROM json_each(?)))"
        )
        with self._c.write:
            held, free = sound.format("NOT IN"), sound.format("IN")
            self._c.execute(
                f"UPDATE uploads SET put_aside = NULL WHERE put_aside = ? AND digest IN ({free})",  # noqa: S608
                (NO_CONSENT, names),
            )
            self._c.execute(
                f"UPDATE uploads SET put_aside = ? WHERE put_aside IS NULL AND digest IN ({held})",  # noqa: S608
                (NO_CONSENT, names),
            )
            return int(self._c.one("SELECT count(*) FROM uploads WHERE put_aside = ?", NO_CONSENT))

    def want(self, digests: Iterable[str]) -> int:
        """Queue kept inputs that are not uploaded and not queued; return how many were added.

        Raises:
            StoreError: none was queued.
        """
        with self._c.write:
            return sum(
                self._c.execute(
                    "INSERT INTO uploads (digest) SELECT digest FROM inputs WHERE digest = ? AND NOT uploaded "
                    "ON CONFLICT DO NOTHING",
                    (digest,),
                ).rowcount
                for digest in digests
            )

    def waiting(self) -> int:
        """Return how many kept inputs wait to be sent."""
        return int(self._c.one("SELECT count(*) FROM uploads WHERE put_aside IS NULL"))

    def next(self) -> Upload | None:
        """Return the input to send next, or None."""
        found = self._c.all(
            "SELECT digest, media_type, size_bytes, tries FROM uploads JOIN inputs USING (digest) "
            "WHERE put_aside IS NULL ORDER BY tries, position LIMIT 1"
        )
        return Upload(*found[0]) if found else None

    def mark_uploaded(self, digest: str) -> None:
        """Take note that the control plane has this input.

        Raises:
            StoreError: it was not recorded; the input will be sent again.
        """
        with self._c.write:
            self._c.execute("DELETE FROM uploads WHERE digest = ?", (digest,))
            self._c.execute("UPDATE inputs SET uploaded = 1 WHERE digest = ?", (digest,))

    def move_back(self, digest: str) -> None:
        """Put a waiting input behind the others.

        Raises:
            StoreError: it was not recorded.
        """
        with self._c.write:
            self._c.execute(
                "UPDATE uploads SET position = (SELECT max(position) + 1 FROM uploads) WHERE digest = ?", (digest,)
            )

    def refuse(self, digest: str, why: str) -> bool:
        """Count a refusal by the control plane; after the limit the input is put aside. Return whether it was now.

        Raises:
            StoreError: it was not recorded.
        """
        with self._c.write:
            changed = self._c.execute(
                "UPDATE uploads SET tries = tries + 1, put_aside = iif(tries + 1 >= ?, ?, NULL) WHERE digest = ? "
                "RETURNING put_aside IS NOT NULL",
                (self._max_refusals, why, digest),
            ).fetchall()
        return bool(changed and changed[0][0])

    def _erase(self, digest: str) -> bool:
        for table in ("uploads", "keepers"):
            self._c.execute(f"DELETE FROM {table} WHERE digest = ?", (digest,))  # noqa: S608 - constants
        return self._c.execute("DELETE FROM inputs WHERE digest = ?", (digest,)).rowcount > 0
