-- The device's own record: one SQLite file, as this version makes a new one. Statements only; the opener sets
-- user_version.
--
-- Rules:
-- * Everything that must be true together is written in one transaction.
-- * `rows` is the log and the outbox in one: a row is in the outbox while its seq is above the
--   `stored_through` in `state`. Nothing is copied from one table to another, so nothing can fall between.
-- * An older file is brought here by edge/migrations/, applied in order; a change of this file comes with the next one
--   of those. A test upgrades a record of every older version and compares its schema with this one.

-- Every row that the device has recorded, in the order in which it was committed.
CREATE TABLE rows (
    seq     INTEGER PRIMARY KEY,        -- given by SQLite: one more than the newest row's, which is never dropped
    kind    TEXT    NOT NULL,           -- decision, outcome, event, telemetry
    station TEXT,                       -- NULL for what concerns the whole device
    at_ms   INTEGER NOT NULL,           -- wall clock of the device; may jump, so never used for order
    body    TEXT    NOT NULL,           -- JSON of the row as it travels, without `seq`
    input_key      TEXT,                        -- of a decision: its input, from now on in `seen`
    awaits_outcome INTEGER NOT NULL DEFAULT 0,  -- of a decision: 1 puts it into `pending_actions`
    outcome_of     INTEGER                      -- of an outcome: its decision, taken out of `pending_actions`
) STRICT;

-- What belongs to a row is done by its insert, so that the hot path is one statement and one transaction.
CREATE TRIGGER input_decided AFTER INSERT ON rows WHEN NEW.input_key IS NOT NULL BEGIN
    INSERT INTO seen (station, key, seq) VALUES (NEW.station, NEW.input_key, NEW.seq)
    ON CONFLICT DO UPDATE SET seq = excluded.seq;
END;

CREATE TRIGGER action_begun AFTER INSERT ON rows WHEN NEW.awaits_outcome BEGIN
    INSERT INTO pending_actions (seq) VALUES (NEW.seq);
END;

CREATE TRIGGER action_ended AFTER INSERT ON rows WHEN NEW.outcome_of IS NOT NULL BEGIN
    DELETE FROM pending_actions WHERE seq = NEW.outcome_of;
END;

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

-- Raw inputs, or features of them, kept for people and for replay, once per content.
CREATE TABLE inputs (
    digest      TEXT    PRIMARY KEY,            -- SHA-256 of `bytes`, lower-case hexadecimal
    media_type  TEXT    NOT NULL,
    size_bytes  INTEGER NOT NULL,
    kept_at_ms  INTEGER NOT NULL,               -- for the first time
    uploaded    INTEGER NOT NULL DEFAULT 0,     -- 1: the control plane has it
    bytes       BLOB    NOT NULL                -- last, so that reading the columns above skips it
) STRICT;

-- Answers the total size of what is kept without reading it.
CREATE INDEX inputs_to_drop ON inputs (uploaded DESC, kept_at_ms, size_bytes);

-- For which stations an input is kept, and why: it goes when the last of them no longer keeps it. Each input has one.
CREATE TABLE keepers (
    digest      TEXT    NOT NULL,   -- of the input in `inputs`
    station     TEXT    NOT NULL,   -- '' where nobody knows any more
    kind        TEXT    NOT NULL,   -- confident_inputs, disagreement_inputs, deferred_inputs: what for
    kept_at_ms  INTEGER NOT NULL,   -- for the last time
    PRIMARY KEY (digest, station)
) STRICT, WITHOUT ROWID;

-- The order in which they go. One index for all stations and uses: each more is one more page written with each input.
CREATE INDEX keepers_by_age ON keepers (kept_at_ms);

-- Which kept inputs wait to be sent.
CREATE TABLE uploads (
    position    INTEGER PRIMARY KEY,            -- order of sending
    digest      TEXT    NOT NULL UNIQUE,
    tries       INTEGER NOT NULL DEFAULT 0,     -- refusals so far
    put_aside   TEXT                            -- NULL: waiting; else why it is not tried any more
) STRICT;

-- What a staged candidate said to windows that the incumbent decided. Never sent row by row: counts and disagreements
-- go up as events.
CREATE TABLE shadow_results (
    decision_seq INTEGER NOT NULL,      -- the incumbent's decision on the same window
    digest       TEXT    NOT NULL,      -- of the candidate's bundle
    version      TEXT    NOT NULL,
    verdict      TEXT    NOT NULL,
    label        TEXT,
    confidence   REAL,
    scores       TEXT    NOT NULL,      -- JSON, probability per label
    latency_ms   REAL    NOT NULL,
    at_ms        INTEGER NOT NULL,
    PRIMARY KEY (decision_seq, digest)
) STRICT, WITHOUT ROWID;

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
