"""The tables of alerts, in the schema of `cloud.tables`.

Rules:
- An alert is one breach of one rule by one subject, from its beginning to its end; the next breach is another alert.
- What is to be told stands in `alert_deliveries` until it is told or given up, so a restart forgets nothing.
"""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table, Text

from cloud.tables import metadata

alerts = Table(
    "alerts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("rule", String(64), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("state", String(16), nullable=False),  # pending, firing, resolved
    Column("began_ms", BigInteger, nullable=False),
    Column("fired_ms", BigInteger),
    Column("clear_ms", BigInteger),  # since when it is clear, while it still fires
    Column("resolved_ms", BigInteger),
    Column("value", Float),
    Column("words", Text, nullable=False),
    Column("told_ms", BigInteger),  # when its channels were first given it
    Column("acked_by", String(64)),
    Column("acked_ms", BigInteger),
    Column("ack_why", Text),
    Index("alerts_by_state", "state", "rule"),
)

alert_silences = Table(
    "alert_silences",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("rule", String(64), nullable=False),  # '' for any
    Column("subject", String(200), nullable=False),  # '' for any
    Column("until_ms", BigInteger, nullable=False),
    Column("who", String(64), nullable=False),
    Column("why", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("alert", Integer, nullable=False),
    Column("what", String(16), nullable=False),  # fired, resolved
    Column("channel", String(64), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_ms", BigInteger),  # NULL when told or given up
    Column("done_ms", BigInteger),
    Column("error", Text, nullable=False, default=""),
    Index("alert_deliveries_due", "next_ms"),
    Index("alert_deliveries_by_alert", "alert"),
)
