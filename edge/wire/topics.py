"""Names of the MQTT topics, built and taken apart in one place.

Rules:
- `lineside/1/{device}/{channel}`; a device name never holds `/`, `.`, `+`, `#` or white space,
  so the same name is safe as an MQTT topic level, a NATS subject token and a file name.
"""

import re
from typing import Literal, get_args

from edge.wire.base import NAME_PATTERN

CONTRACT_VERSION = 1
PREFIX = f"lineside/{CONTRACT_VERSION}"

Channel = Literal["desired", "reported", "presence", "up", "ack"]
CHANNELS: tuple[Channel, ...] = get_args(Channel)
FROM_DEVICE: tuple[Channel, ...] = ("reported", "presence", "up")
TO_DEVICE: tuple[Channel, ...] = ("desired", "ack")


def topic(device: str, channel: Channel) -> str:
    """Return the topic of one device's channel.

    Raises:
        ValueError: the device name is not a valid one, or the channel is unknown.
    """
    if not re.fullmatch(NAME_PATTERN, device):
        raise ValueError(f"device name: expected {NAME_PATTERN}, got {device!r}")
    if channel not in CHANNELS:
        raise ValueError(f"channel: expected one of {', '.join(CHANNELS)}, got {channel!r}")
    return f"{PREFIX}/{device}/{channel}"


def every_device(channel: Channel) -> str:
    """Return the subscription that matches this channel of all devices."""
    return f"{PREFIX}/+/{channel}"


def parse(name: str) -> tuple[str, Channel]:
    """Return (device, channel) of a topic.

    Raises:
        ValueError: the topic is not one of this contract.
    """
    parts = name.split("/")
    if len(parts) == 4 and "/".join(parts[:2]) == PREFIX:
        for channel in CHANNELS:
            if parts[3] == channel and re.fullmatch(NAME_PATTERN, parts[2]):
                return parts[2], channel
    raise ValueError(f"topic: expected {PREFIX}/<device>/<channel>, got {name!r}")
