"""The tables of telemetry's rollups and of drift, in the schema of `cloud.tables`.

Rules:
- A series is what is counted where: device, station, model, bundle, metric and the edges of its bins.
- A point is a series' sum over a minute, an hour or a day: it can be added to any other of the same series.
- What waits to be added stands in `rollup_queue` and `health_samples`; it leaves them in the transaction that adds it.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from cloud.tables import metadata

rollup_queue = Table(
    "rollup_queue",  # telemetry rows that no rollup holds yet
    metadata,
    Column("device", String(64), primary_key=True),
    Column("incarnation", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
)

rollup_marks = Table(
    "rollup_marks",  # what was done once, for example that the rows of an older release were queued
    metadata,
    Column("name", String(64), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
)

health_samples = Table(
    "health_samples",  # a device's own state, once a minute at most
    metadata,
    Column("device", String(64), primary_key=True),
    Column("minute_ms", BigInteger, primary_key=True),  # received
    Column("body", JSON, nullable=False),  # metric → number
    Column("rolled", Boolean, nullable=False, default=False),
    Index("health_samples_to_roll", "minute_ms", sqlite_where=text("NOT rolled"), postgresql_where=text("NOT rolled")),
)

metric_edges = Table(
    "metric_edges",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of the edges as JSON
    Column("edges", JSON, nullable=False),
)

metric_series = Table(
    "metric_series",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("device", String(64), nullable=False),
    Column("station", String(64), nullable=False),  # '' for the device itself
    Column("model", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("digest", String(64), nullable=False),  # of the bundle, '' for none
    Column("stage", String(16), nullable=False),
    Column("metric", String(64), nullable=False),
    Column("edges", Integer, nullable=False),  # of metric_edges; 0 for a plain count
    UniqueConstraint("device", "station", "model", "digest", "metric", "edges"),
    Index("metric_series_by_metric", "metric"),
)

metric_points = Table(
    "metric_points",
    metadata,
    Column("series", Integer, primary_key=True),
    Column("step_s", Integer, primary_key=True),  # 60, 3600 or 86400
    Column("start_ms", BigInteger, primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("bins", JSON),  # [[bin, count], …] of the bins that hold something; NULL for a plain count
    Index("metric_points_by_age", "step_s", "start_ms"),
)

drift_baselines = Table(
    "drift_baselines",  # a device's own first week, frozen when it is over
    metadata,
    Column("device", String(64), primary_key=True),
    Column("station", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("edges", Integer, primary_key=True),  # 0 for counts by category
    Column("from_ms", BigInteger, nullable=False),
    Column("frozen", Boolean, nullable=False, default=False),
    Column("bins", JSON, nullable=False),  # [[bin or category, count], …]
)

drift_cursors = Table(
    "drift_cursors",  # up to which hour a station was looked at
    metadata,
    Column("device", String(64), primary_key=True),
    Column("station", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("hour_ms", BigInteger, nullable=False),
)

drift_states = Table(
    "drift_states",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("station", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("against", String(16), primary_key=True),  # bundle, first_week
    Column("stage", String(16), nullable=False),
    Column("digest", String(64), nullable=False),  # of the bundle that was compared last
    Column("drifting", Boolean, nullable=False),
    Column("agreeing", Integer, nullable=False),  # comparisons in a row that speak against the present state
    Column("since_ms", BigInteger),  # start of the first hour that differed, of what drifts now
    Column("began_ms", BigInteger),  # the same, of what may be about to drift
    Column("looked_through_ms", BigInteger, nullable=False),
    Column("distance", Float),
    Column("threshold", Float),
    Column("n", BigInteger),
    Column("median", Float),
    Column("reference_median", Float),
    Column("words", Text, nullable=False, default=""),
    Column("updated_at_ms", BigInteger, nullable=False),
    Index("drift_states_drifting", "drifting"),
)
