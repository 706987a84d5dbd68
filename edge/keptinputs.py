"""Raw inputs that the device keeps for people and for replay, and which of them wait to be sent.

Rules:
- Once per content: two decisions on the same bytes share one input.
- An input that the control plane refuses again and again is put aside, never tried for ever and never dropped for it.
"""

from collections.abc import Iterable
from typing import NamedTuple

from edge.connection import Connection


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

    def keep(self, digest: str, data: bytes, media_type: str, at_ms: int, *, upload: bool) -> None:
        """Keep an input, once per content; to be called inside a transaction."""
        self._c.execute(
            "INSERT INTO inputs (digest, media_type, size_bytes, kept_at_ms, bytes) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            (digest, media_type, len(data), at_ms, data),
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

    def before(self, at_ms: int) -> list[str]:
        """Return the digests of what was kept before a moment."""
        return [digest for (digest,) in self._c.all("SELECT digest FROM inputs WHERE kept_at_ms < ?", at_ms)]

    def erase(self, digests: Iterable[str]) -> list[str]:
        """Overwrite and drop these inputs; return those that were there. To be called inside a transaction."""
        erased = []
        for digest in digests:
            # Zeros first: a page that is freed, or a blob's overflow, keeps its bytes until something else needs it.
            changed = self._c.execute("UPDATE inputs SET bytes = zeroblob(length(bytes)) WHERE digest = ?", (digest,))
            if changed.rowcount:
                self._c.execute("DELETE FROM uploads WHERE digest = ?", (digest,))
                self._c.execute("DELETE FROM inputs WHERE digest = ?", (digest,))
                erased.append(digest)
        return erased

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
