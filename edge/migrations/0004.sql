-- Version 4: who keeps an input and what for, so that each station has its own time for it and what is worth least goes
-- first.

CREATE TABLE keepers (
    digest      TEXT    NOT NULL,   -- of the input in `inputs`
    station     TEXT    NOT NULL,   -- '' where nobody knows any more
    kind        TEXT    NOT NULL,   -- confident_inputs, disagreement_inputs, deferred_inputs: what for
    kept_at_ms  INTEGER NOT NULL,   -- for the last time
    PRIMARY KEY (digest, station)
) STRICT, WITHOUT ROWID;

-- From the decisions that are still here; a text that was damaged on disk must not keep the device from starting.
INSERT INTO keepers (digest, station, kind, kept_at_ms)
SELECT i.digest, d.station, iif(max(d.reasoned), 'deferred_inputs', 'confident_inputs'), max(i.kept_at_ms, max(d.at_ms))
FROM (
    SELECT station, at_ms, json_extract(body, '$.input.digest') AS digest,
           json_extract(body, '$.reason') IS NOT NULL AS reasoned
    FROM (SELECT station, at_ms, iif(json_valid(body), body, '{}') AS body FROM rows WHERE kind = 'decision')
) AS d
JOIN inputs AS i ON i.digest = d.digest
WHERE d.station IS NOT NULL
GROUP BY i.digest, d.station;

-- The rest was kept for decisions that were dropped since, or for a disagreement with a candidate.
INSERT INTO keepers (digest, station, kind, kept_at_ms)
SELECT digest, '', 'deferred_inputs', kept_at_ms FROM inputs WHERE digest NOT IN (SELECT digest FROM keepers);

-- The order in which they go. One index for all stations and uses: each more is one more page written with each input.
CREATE INDEX keepers_by_age ON keepers (kept_at_ms);
