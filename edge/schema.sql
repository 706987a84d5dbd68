-- The device's own record: one SQLite file, version 1. Statements only; the opener sets user_version.
--
-- Rules:
-- * Everything that must be true together is written in one transaction.
-- * `rows` is the log and the outbox in one: a row is in the outbox while its seq is above the
--   `stored_through` in `state`. Nothing is copied from one table to another, so nothing can fall between.
-- * Later versions come as files in edge/migrations/, applied in order, never by changing this one alone:
--   a test migrates an old file and compares its schema with a fresh one.

-- Every row that the device has recorded, in the order in which it was committed.
CREATE TABLE rows (
    -- Given by SQLite: from 1, without holes (a rolled-back insert gives its number back), and never used
    -- again after the row was pruned. That is what AUTOINCREMENT adds.
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    TEXT    NOT NULL,   -- decision, outcome, event, telemetry
    station TEXT,               -- NULL for what concerns the whole device
    at_ms   INTEGER NOT NULL,   -- wall clock of the device; may jump, so never used for order
    body    TEXT    NOT NULL    -- JSON of the row as it travels, without `seq`
) STRICT;

-- Decisions whose action was not confirmed yet. What is here after a restart has an unknown outcome.
CREATE TABLE pending_actions (
    seq INTEGER PRIMARY KEY     -- of the decision in `rows`
) STRICT;

-- Which inputs of a source were decided, so that a restart does not decide them again.
CREATE TABLE seen (
    station TEXT    NOT NULL,
    key     TEXT    NOT NULL,   -- the source's own identity of the input
    seq     INTEGER NOT NULL,   -- of the latest decision on it
    PRIMARY KEY (station, key)
) STRICT, WITHOUT ROWID;

-- Raw inputs kept for people and for replay, once per content.
CREATE TABLE inputs (
    digest      TEXT    PRIMARY KEY,            -- SHA-256 of `bytes`, lower-case hexadecimal
    media_type  TEXT    NOT NULL,
    size_bytes  INTEGER NOT NULL,
    kept_at_ms  INTEGER NOT NULL,
    uploaded    INTEGER NOT NULL DEFAULT 0,     -- 1: the control plane has it
    bytes       BLOB    NOT NULL                -- last, so that reading the columns above skips it
) STRICT;

-- Uploaded before not uploaded, oldest first: the order in which inputs are dropped; also answers their total size.
CREATE INDEX inputs_to_drop ON inputs (uploaded DESC, kept_at_ms, size_bytes);

-- Which kept inputs wait to be sent.
CREATE TABLE uploads (
    position    INTEGER PRIMARY KEY,            -- order of sending
    digest      TEXT    NOT NULL UNIQUE,
    tries       INTEGER NOT NULL DEFAULT 0,     -- refusals so far
    put_aside   TEXT                            -- NULL: waiting; else why it is not tried any more
) STRICT;

-- One row: who this file is and how far the control plane has stored it.
CREATE TABLE state (
    only_row       INTEGER PRIMARY KEY CHECK (only_row = 1),
    incarnation    TEXT    NOT NULL,            -- made with the file; a new file is a new sequence
    stored_through INTEGER NOT NULL DEFAULT 0   -- the control plane has every row up to this seq
) STRICT;

-- Small facts of other parts that must survive a restart, for example the applied config version.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
