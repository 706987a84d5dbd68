"""Compares a device's record with what the control plane has of it, row by row."""

import json
from typing import Any

from tests.faults.plant import Cloud, Device

ROW_TABLES = {"decisions": "decision", "outcomes": "outcome", "events": "event", "telemetry": "telemetry"}


def assert_same_in_cloud(device: Device, cloud: Cloud) -> None:
    """Make sure that the cloud has every row that the device holds for stored, each once and as it was written.

    All decisions must be there. What the daemon writes while it ends (its last word, the last counts) may wait.
    """
    ((incarnation, stored_through),) = device.rows("SELECT incarnation, stored_through FROM state")
    on_device = {seq: (kind, body) for seq, kind, body in device.rows("SELECT seq, kind, body FROM rows")}
    in_cloud = rows_in_cloud(device.name, incarnation, cloud)
    assert set(in_cloud) >= set(range(1, stored_through + 1)), "acknowledged rows are missing in the cloud"
    assert set(in_cloud) <= set(on_device), "the cloud has rows that the device never wrote"
    decided = {seq for seq, (kind, _) in on_device.items() if kind == "decision"}
    assert decided <= set(in_cloud), "decisions are missing in the cloud"
    for seq, (kind, body) in in_cloud.items():
        assert on_device[seq][0] == kind
        assert {**json.loads(on_device[seq][1]), "seq": seq} == {**body, "seq": seq}
    assert cloud.rows("SELECT reason FROM quarantine") == []


def rows_in_cloud(device: str, incarnation: str, cloud: Cloud) -> dict[int, tuple[str, dict[str, Any]]]:
    """Return kind and body of every row of a device by its number; fail if a number is there twice."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for table, kind in ROW_TABLES.items():
        query = f"SELECT incarnation, seq, body FROM {table} WHERE device = ?"
        for of, seq, body in cloud.rows(query, device):
            assert of == incarnation, "the device never began anew"
            assert seq not in found, f"row {seq} is in the cloud twice"
            found[seq] = (kind, json.loads(body))
    return found


def stored_in_cloud(device: str, cloud: Cloud) -> int:
    """Return the number up to which the control plane holds everything."""
    found = cloud.rows("SELECT stored_through FROM streams WHERE device = ?", device)
    return int(found[0][0]) if found else 0
