"""The tables of dataset versions and retraining, in the schema of `cloud.tables`."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text

from cloud.tables import metadata

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the file
    Column("model", String(64), nullable=False),
    Column("rows", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(64), nullable=False),
    Index("dataset_versions_by_model", "model", "created_ms"),
)

drift_episodes = Table(
    "drift_episodes",  # from the first station of a model that drifts to the last that does no more
    metadata,
    Column("model", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("open", Boolean, nullable=False),
)

retrainings = Table(
    "retrainings",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("cause", String(200), nullable=False, unique=True),  # so that one cause starts one
    Column("kind", String(16), nullable=False),  # drift, labels, hand
    Column("reason", Text, nullable=False),
    Column("who", String(64), nullable=False),
    Column("dataset", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # waiting, starting, running, finished, failed
    Column("created_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_ms", BigInteger),
    Column("error", Text, nullable=False, default=""),
    Column("candidate", String(64)),  # digest of the bundle that came of it
    Column("owner", String(32)),  # folder of the copy that starts it: no other copy ever does
    Column("seen_ms", BigInteger),  # when that copy last looked after it
    Index("retrainings_by_model", "model", "state"),
)
