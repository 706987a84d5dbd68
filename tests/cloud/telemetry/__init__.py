"""Tests of telemetry: rollups, queries, drift."""
