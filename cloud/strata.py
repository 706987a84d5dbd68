"""Draws the arms of a rollout: by strata and a seed, never the healthiest first; pure.

Rules:
- The order depends on the names, strata and seed alone, so that a restart draws the same devices again.
- Every beginning of the order holds each stratum in proportion, as nearly as whole devices allow (systematic
  sampling): whoever takes the first tenth takes about a tenth of each site and profile.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from functools import lru_cache


def stratum(site: str, profile: str) -> str:
    """Return the name of a device's stratum."""
    return f"{site}/{profile}"


def draw_order(strata: Mapping[str, str], seed: int) -> list[str]:
    """Return all devices in the order in which they are drawn.

    Args:
        strata: stratum per device.
        seed: of the rollout, so that it is not the same boxes that bear the risk every time.
    """
    return list(_draw_order(tuple(strata.items()), seed))


@lru_cache(maxsize=8)
def _draw_order(items: tuple[tuple[str, str], ...], seed: int) -> tuple[str, ...]:
    """Do the same; kept between looks, because a hundred thousand devices take a second."""
    strata = dict(items)
    chance = {device: _chance(seed, device) for device in strata}
    groups: dict[str, list[str]] = defaultdict(list)
    for device in sorted(strata, key=chance.__getitem__):
        groups[strata[device]].append(device)
    place = {
        device: (rank + offset) / len(devices)
        for devices, offset in ((devices, _chance(seed, f"stratum {name}")) for name, devices in groups.items())
        for rank, device in enumerate(devices)
    }
    return tuple(sorted(strata, key=lambda name: (place[name], chance[name], name)))


def matching_controls(
    order: list[str], strata: Mapping[str, str], candidates: Collection[str], controls: Collection[str], count: int
) -> list[str]:
    """Return up to `count` further controls from `order`: first where a stratum has fewer controls than candidates.

    Args:
        order: the devices that may become controls, in drawing order.
        strata: stratum per device, of all devices named.
        candidates: the candidate arm.
        controls: the controls so far.
        count: how many are wanted.
    """
    short = Counter(strata[name] for name in candidates)
    short.subtract(strata[name] for name in controls)
    chosen: list[str] = []
    for name in order:
        if len(chosen) < count and short[strata[name]] > 0:
            short[strata[name]] -= 1
            chosen.append(name)
    taken = set(chosen)
    rest = [name for name in order if name not in taken]
    return chosen + rest[: max(0, count - len(chosen))]


def _chance(seed: int, name: str) -> float:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56
