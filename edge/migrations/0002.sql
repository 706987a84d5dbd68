-- Version 2: what belongs to a row is done by its insert, so that the hot path is one statement and one transaction,
-- and a row's number comes from the table alone: its newest row is never dropped, so no number is given twice.

CREATE TABLE rows_2 (
    seq     INTEGER PRIMARY KEY,        -- given by SQLite: one more than the newest row's
    kind    TEXT    NOT NULL,           -- decision, outcome, event, telemetry
    station TEXT,                       -- NULL for what concerns the whole device
    at_ms   INTEGER NOT NULL,           -- wall clock of the device; may jump, so never used for order
    body    TEXT    NOT NULL,           -- JSON of the row as it travels, without `seq`
    input_key      TEXT,                        -- of a decision: its input, from now on in `seen`
    awaits_outcome INTEGER NOT NULL DEFAULT 0,  -- of a decision: 1 puts it into `pending_actions`
    outcome_of     INTEGER                      -- of an outcome: its decision, taken out of `pending_actions`
) STRICT;

INSERT INTO rows_2 (seq, kind, station, at_ms, body) SELECT seq, kind, station, at_ms, body FROM rows;

-- Version 1 may have dropped its newest rows, all of them stored by the control plane; their numbers stay used.
INSERT INTO rows_2 (seq, kind, at_ms, body)
SELECT seq, 'event', 0, '{"kind":"event","at_ms":0,"boot_id":"","name":"record_upgraded"}' FROM sqlite_sequence
WHERE name = 'rows' AND seq > (SELECT coalesce(max(seq), 0) FROM rows);

DROP TABLE rows;

ALTER TABLE rows_2 RENAME TO rows;

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
