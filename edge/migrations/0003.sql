-- Version 3: what a staged candidate said to windows that the incumbent decided. Never sent row by row: counts and
-- disagreements go up as events.

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
