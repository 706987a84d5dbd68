"""The control plane's tables, one schema for SQLite and PostgreSQL.

Rules:
- A row of a device is identified by (device, incarnation, seq); inserting it again changes nothing.
- Times are Unix milliseconds; `…_at_ms` of devices is their own clock, `received_at_ms` is ours.
- `body` holds the whole row or document as it came, so that fields we do not know yet are kept.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

claims = Table(
    "claims",
    metadata,
    Column("token_digest", String(64), primary_key=True),  # SHA-256 of the token; the token itself is shown once
    Column("device", String(64)),  # bound to this name, or NULL for any
    Column("profile", String(64)),
    Column("site", String(64)),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("used_by_key", String(64)),  # public key of the device that used it: the same one may ask again
    Column("used_at_ms", BigInteger),
    Column("void_at_ms", BigInteger),  # its device was put out: of no use to anybody from then on
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),  # hexadecimal
    Column("device", String(64), nullable=False),
    Column("pem", Text, nullable=False),
    Column("issued_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger),  # put out, or another took its place
    Column("authority", String(64)),  # fingerprint of the one that signed it
    Index("certificates_by_device", "device"),
)

authorities = Table(
    "authorities",  # of certificates; see cloud.authorities
    metadata,
    Column("fingerprint", String(64), primary_key=True),
    Column("pem", Text, nullable=False),
    Column("key", Text),  # encrypted, where several copies share it; else it is a file, and gone once it is retired
    Column("created_at_ms", BigInteger, nullable=False),
    Column("in_use_at_ms", BigInteger),  # the broker takes what it has signed
    Column("retire_at_ms", BigInteger),  # another takes its place, and until then both are trusted
    Column("retired_at_ms", BigInteger),
)

devices = Table(
    "devices",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("profile", String(64), nullable=False),
    Column("site", String(64), nullable=False),
    Column("tags", JSON, nullable=False),
    Column("models", JSON, nullable=False),  # names of the models that its stations run
    Column("public_key", String(64), nullable=False),
    Column("token_digest", String(64), nullable=False),
    Column("broker_password_hash", String(100), nullable=False),  # bcrypt, as nats-server takes it
    Column("mosquitto_password_hash", Text),  # PBKDF2, as Mosquitto takes it
    Column("enrolled_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger),
    Column("trusts", String(64)),  # fingerprint of the newest authority that it was told to trust
)

device_state = Table(
    "device_state",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("boot_id", String(64)),
    Column("online", Boolean, nullable=False, default=False),
    Column("presence_at_ms", BigInteger),  # received
    Column("reported_at_ms", BigInteger),  # received
    Column("last_heard_at_ms", BigInteger, nullable=False),  # any message, received
    Column("interval_s", Float),  # how often it promised to report
    Column("reported", JSON),  # the last `reported` document
)

streams = Table(
    "streams",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("incarnation", String(64), primary_key=True),
    Column("stored_through", BigInteger, nullable=False, default=0),  # highest contiguous sequence number stored
    Column("beyond", JSON),  # [[first, last], …] of what is stored beyond a hole
    Column("first_seen_at_ms", BigInteger, nullable=False),
)


def _row_key() -> list[Column[object]]:
    return [
        Column("device", String(64), primary_key=True),
        Column("incarnation", String(64), primary_key=True),
        Column("seq", BigInteger, primary_key=True),
        Column("at_ms", BigInteger, nullable=False),
        Column("received_at_ms", BigInteger, nullable=False),
    ]


decisions = Table(
    "decisions",
    metadata,
    *_row_key(),
    Column("station", String(64), nullable=False),
    Column("model", String(64)),
    Column("version", String(32)),
    Column("digest", String(64)),  # of the bundle
    Column("verdict", String(16), nullable=False),
    Column("action", String(16), nullable=False),
    Column("reason", String(32)),
    Column("label", String(64)),
    Column("confidence", Float),
    Column("audit_probability", Float, nullable=False, default=0.0),
    Column("input_digest", String(64), nullable=False),
    Column("input_kept", Boolean),  # the device has its bytes and can be asked for them
    Column("latency_ms", Float),  # total
    Column("needs_review", Boolean, nullable=False, default=False),  # deferred or audited, and not yet answered
    Column("body", JSON, nullable=False),
    Index("decisions_by_device", "device", "at_ms"),
    Index("decisions_by_bundle", "digest", "received_at_ms"),
    Index("decisions_to_review", "needs_review", "at_ms"),
    Index("decisions_to_review_by_device", "device", "needs_review", "at_ms"),
)

outcomes = Table(
    "outcomes",
    metadata,
    *_row_key(),
    Column("decision_seq", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("body", JSON, nullable=False),
    Index("outcomes_by_decision", "device", "incarnation", "decision_seq"),
    # Few rows go wrong, and rollouts ask for those every second.
    Index(
        "outcomes_gone_wrong",
        "received_at_ms",
        sqlite_where=text("state <> 'done'"),
        postgresql_where=text("state <> 'done'"),
    ),
)

events = Table(
    "events",
    metadata,
    *_row_key(),
    Column("name", String(64), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("station", String(64)),
    Column("model", String(64)),
    Column("detail", Text, nullable=False),
    Column("body", JSON, nullable=False),
    Index("events_by_name", "name", "at_ms"),
    Index("events_by_device", "device", "at_ms"),
    Index("events_by_severity", "severity", "at_ms"),
)

telemetry = Table(
    "telemetry",
    metadata,
    *_row_key(),  # at_ms is the window's end
    Column("station", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("digest", String(64)),
    Column("started_at_ms", BigInteger, nullable=False),
    Column("body", JSON, nullable=False),
    Index("telemetry_by_device", "device", "at_ms"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("topic", String(200), nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("payload", Text, nullable=False),  # at most a few kilobytes of it
    Column("digest", String(64), unique=True),  # of topic, reason and payload: the same thing again adds no row
)

inputs = Table(
    "inputs",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("media_type", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("device", String(64), nullable=False),  # who sent it first
    Column("received_at_ms", BigInteger, nullable=False),
)

input_senders = Table(
    "input_senders",  # every device that has sent an input: it is removed with the last of them
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("device", String(64), primary_key=True),
)

erasures = Table(
    "erasures",  # what a device was asked to forget, so that no copy on its way brings it back
    metadata,
    Column("device", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),  # of the input; '' for the request itself
    Column("incarnation", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True),  # of the event that asked
    Column("at_ms", BigInteger, nullable=False),  # received
)

reviews = Table(
    "reviews",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("device", String(64), nullable=False),
    Column("incarnation", String(64), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("answer", String(16), nullable=False),  # pass, divert, accept, cant_tell
    Column("label", String(64)),  # the class, where the reviewer named it
    Column("reviewer", String(64), nullable=False),
    Column("note", Text, nullable=False, default=""),
    Column("at_ms", BigInteger, nullable=False),
    Index("reviews_by_decision", "device", "incarnation", "seq"),
    Index("reviews_by_time", "at_ms"),
)

bundles = Table(
    "bundles",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("manifest", JSON, nullable=False),
    Column("published_at_ms", BigInteger, nullable=False),
    Column("published_by", String(64), nullable=False),
    Column("state", String(16), nullable=False, default="candidate"),  # see cloud.lifecycle
    Column("approved_at_ms", BigInteger),  # made the default: the approved one of a model with the last is it
    UniqueConstraint("name", "version"),
)

desired = Table(
    "desired",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("config_version", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Column("body", JSON, nullable=False),  # the `desired` document as published
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("status", String(16), nullable=False),  # running, paused, done, rolled_back, aborted
    Column("plan", JSON, nullable=False),
    Column("state", JSON, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
)

rollout_log = Table(
    "rollout_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("rollout", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("step", String(32), nullable=False),  # started, stage_entered, gate_passed, gate_failed, rolled_back, …
    Column("reason", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Index("rollout_log_by_rollout", "rollout", "id"),
)

seats = Table(
    "seats",  # work that one of several copies does at a time; see cloud.seat
    metadata,
    Column("name", String(32), primary_key=True),
    Column("term", BigInteger, nullable=False),  # how often it was taken
    Column("copy", String(16), nullable=False),
    Column("taken_at_ms", BigInteger, nullable=False),
)

repository_files = Table(
    "repository_files",  # the signed lists, where several copies give them out; see cloud.shelf
    metadata,
    Column("name", String(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

people = Table(
    "people",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),  # see cloud.roles
    Column("password_hash", Text),  # Argon2id; NULL until its owner has chosen one
    Column("invite_digest", String(64), unique=True),  # of the one-time link by which its owner chooses it
    Column("invite_expires_at_ms", BigInteger),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("created_by", String(64), nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of what the browser's cookie holds
    Column("person", String(64), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Index("sessions_by_person", "person"),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of the token; it is shown once
    Column("person", String(64), nullable=False),
    Column("label", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger),
    Index("api_tokens_by_person", "person"),
)

# Only ever added to: triggers refuse the rest (cloud.audit), and each row holds the digest of the one before it.
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),  # 1, 2, 3, … without a gap
    Column("at_ms", BigInteger, nullable=False),
    Column("who", String(64), nullable=False),
    Column("what", String(64), nullable=False),
    Column("why", Text, nullable=False, default=""),
    Column("data", JSON, nullable=False),  # what it was done to
    Column("before", JSON),
    Column("after", JSON),
    Column("previous", String(64)),  # the digest of the row before
    Column("digest", String(64)),  # SHA-256 of this row with `previous`; see cloud.audit
)
