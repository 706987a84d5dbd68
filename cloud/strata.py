"""Draws the arms of a rollout: by strata and a seed, never the healthiest first; pure.

Rules:
- The order depends on the names, strata and seed alone, so that a restart draws the same devices again.
- Every beginning of the order holds each stratum in proportion, as nearly as whole devices allow (systematic
  sampling): whoever takes the first tenth takes about a tenth of each site and profile.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping


def stratum(site: str, profile: str) -> str:
    """Return the name of a device's stratum."""
    return f"{site}/{profile}"


def draw_order(strata: Mapping[str, str], seed: int) -> list[str]:
    """Return all devices in the order in which they are drawn.

    Args:
        strata: stratum per device.
        seed: of the rollout, so that it is not the same boxes that bear the risk every time.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for device in sorted(strata, key=lambda name: _chance(seed, name)):
        groups[strata[device]].append(device)
    place = {
        device: (rank + _chance(seed, f"stratum {name}")) / len(devices)
        for name, devices in groups.items()
        for rank, device in enumerate(devices)
    }
    return sorted(strata, key=lambda name: (place[name], _chance(seed, name), name))


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
    rest = [name for name in order if name not in chosen]
    return chosen + rest[: max(0, count - len(chosen))]


def _chance(seed: int, name: str) -> float:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56
