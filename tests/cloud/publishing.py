"""Publishes bundles in tests: signs the list as `models publish` does."""

import hashlib
import io
from typing import Any

from cloud import keys
from edge.bundle import parse
from tests.cloud.world import World, now_of


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def signed(
    world: World,
    data: bytes,
    *,
    path: str = "brightness-1.0.0.lsb",
) -> bytes:
    """Return the current list with this bundle added."""
    return keys.with_bundle(
        world.services.registry.repository.targets_bytes(),
        path=path,
        digest=digest_of(data),
        size_bytes=len(data),
        release_key=world.release_key,
        now=now_of(world.clock),
    )


def publish(world: World, data: bytes, *, default: bool = False, who: str = "anna") -> dict[str, Any]:
    """Publish a bundle of `tests.bundles` and return its reference."""
    targets = signed(world, data, path=parse(data).ref.target_path)
    view = world.services.registry.publish(io.BytesIO(data), targets, who=who, default=default, unaudited="a test")
    return view.ref.model_dump()
