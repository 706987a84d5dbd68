"""Telemetry of the fleet: merged into rollups, asked for by metric, watched for drift."""
