-- A record as software with schema version 2 wrote it; never changed. Made by `iterdump`.
PRAGMA auto_vacuum = 2;
-- Left by version 1, and not made by what `iterdump` gives.
CREATE TABLE numbered (a INTEGER PRIMARY KEY AUTOINCREMENT);
DROP TABLE numbered;
BEGIN TRANSACTION;
CREATE TABLE inputs (
    digest      TEXT    PRIMARY KEY,            -- SHA-256 of `bytes`, lower-case hexadecimal
    media_type  TEXT    NOT NULL,
    size_bytes  INTEGER NOT NULL,
    kept_at_ms  INTEGER NOT NULL,
    uploaded    INTEGER NOT NULL DEFAULT 0,     -- 1: the control plane has it
    bytes       BLOB    NOT NULL                -- last, so that reading the columns above skips it
) STRICT;
INSERT INTO "inputs" VALUES('7a6d17d2ba11d8d4e8897cb97e2f033f5fe1691c358f185ca703e46b5abb775a','image/jpeg',27,1764000000000,0,X'706963747572652030706963747572652030706963747572652030');
INSERT INTO "inputs" VALUES('15a23e5a31c340c790d900e013436ffc61c142abf2924f9dbd4bcfe9d607fcea','image/jpeg',27,1764000000001,1,X'706963747572652031706963747572652031706963747572652031');
INSERT INTO "inputs" VALUES('1290bf60f86535d207a9a6cd40656e67396490d97cb5e72a4b44e212d893a2c7','image/jpeg',27,1764000000002,0,X'706963747572652032706963747572652032706963747572652032');
INSERT INTO "inputs" VALUES('e130dda22cdf4838ed88a40a451fee0235e714b04c3b74739f6b08b9d28e05de','image/jpeg',27,1764000000003,0,X'706963747572652033706963747572652033706963747572652033');
INSERT INTO "inputs" VALUES('82bb5ef9bb122c101568cd578632eb6d25320cfbaf6615b51a31b9fd35aedfbe','image/jpeg',27,1764000000004,0,X'706963747572652034706963747572652034706963747572652034');
INSERT INTO "inputs" VALUES('9de53d22c86b5ddab02a16802e20347789420248dd6d15455d1e49270bb491b9','image/jpeg',27,1764000000005,0,X'706963747572652035706963747572652035706963747572652035');
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('config_version','7');
CREATE TABLE pending_actions (
    seq INTEGER PRIMARY KEY     -- of the decision in `rows`
) STRICT;
INSERT INTO "pending_actions" VALUES(12);
INSERT INTO "pending_actions" VALUES(14);
CREATE TABLE "rows" (
    seq     INTEGER PRIMARY KEY,        -- given by SQLite: one more than the newest row's
    kind    TEXT    NOT NULL,           -- decision, outcome, event, telemetry
    station TEXT,                       -- NULL for what concerns the whole device
    at_ms   INTEGER NOT NULL,           -- wall clock of the device; may jump, so never used for order
    body    TEXT    NOT NULL,           -- JSON of the row as it travels, without `seq`
    input_key      TEXT,                        -- of a decision: its input, from now on in `seen`
    awaits_outcome INTEGER NOT NULL DEFAULT 0,  -- of a decision: 1 puts it into `pending_actions`
    outcome_of     INTEGER                      -- of an outcome: its decision, taken out of `pending_actions`
) STRICT;
INSERT INTO "rows" VALUES(1,'event',NULL,1764000000000,'{"kind":"event","at_ms":1764000000000,"boot_id":"boot","name":"daemon_started","severity":"info","station":null,"model":null,"detail":"an ''old'' one\nwith two lines","data":{}}',NULL,0,NULL);
INSERT INTO "rows" VALUES(2,'decision','glass',1764000000000,'{"kind":"decision","station":"glass","at_ms":1764000000000,"boot_id":"boot","monotonic_ms":5,"mode":"partial","verdict":"defer","action":"hand_over","reason":"unsure","detail":"0.5","audit_probability":0.0,"label":"good","confidence":0.98,"scores":{"good":0.98,"scratch":0.02},"bundle":{"name":"phone_glass","version":"1.0.0","digest":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size_bytes":1000},"runtime":"onnxruntime 1.23.0","policy":{"pass_max":0.1,"divert_min":0.9},"input":{"source":"folder","name":"0.jpg","digest":"7a6d17d2ba11d8d4e8897cb97e2f033f5fe1691c358f185ca703e46b5abb775a","media_type":"image/jpeg","size_bytes":27,"kept":true},"metrics":{"brightness":0.5},"latency_ms":{"infer":1.7,"total":2.1}}','0.jpg',1,NULL);
INSERT INTO "rows" VALUES(3,'outcome',NULL,1764000000100,'{"kind":"outcome","decision_seq":2,"at_ms":1764000000100,"state":"done","actuator":"log"}',NULL,0,2);
INSERT INTO "rows" VALUES(4,'decision','glass',1764000000001,'{"kind":"decision","station":"glass","at_ms":1764000000001,"boot_id":"boot","monotonic_ms":6,"mode":"partial","verdict":"pass","action":"pass","audit_probability":0.0,"label":"good","confidence":0.98,"scores":{"good":0.98,"scratch":0.02},"bundle":{"name":"phone_glass","version":"1.0.0","digest":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size_bytes":1000},"runtime":"onnxruntime 1.23.0","policy":{"pass_max":0.1,"divert_min":0.9},"input":{"source":"folder","name":"1.jpg","digest":"15a23e5a31c340c790d900e013436ffc61c142abf2924f9dbd4bcfe9d607fcea","media_type":"image/jpeg","size_bytes":27,"kept":true},"metrics":{"brightness":0.5},"latency_ms":{"infer":1.7,"total":2.1}}','1.jpg',1,NULL);
INSERT INTO "rows" VALUES(5,'outcome',NULL,1764000000101,'{"kind":"outcome","decision_seq":4,"at_ms":1764000000101,"state":"done","actuator":"log"}',NULL,0,4);
INSERT INTO "rows" VALUES(6,'decision','glass',1764000000002,'{"kind":"decision","station":"glass","at_ms":1764000000002,"boot_id":"boot","monotonic_ms":7,"mode":"partial","verdict":"defer","action":"hand_over","reason":"unsure","detail":"0.5","audit_probability":0.0,"label":"good","confidence":0.98,"scores":{"good":0.98,"scratch":0.02},"bundle":{"name":"phone_glass","version":"1.0.0","digest":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size_bytes":1000},"runtime":"onnxruntime 1.23.0","policy":{"pass_max":0.1,"divert_min":0.9},"input":{"source":"folder","name":"2.jpg","digest":"1290bf60f86535d207a9a6cd40656e67396490d97cb5e72a4b44e212d893a2c7","media_type":"image/jpeg","size_bytes":27,"kept":true},"metrics":{"brightness":0.5},"latency_ms":{"infer":1.7,"total":2.1}}','2.jpg',1,NULL);
INSERT INTO "rows" VALUES(7,'outcome',NULL,1764000000102,'{"kind":"outcome","decision_seq":6,"at_ms":1764000000102,"state":"done","actuator":"log"}',NULL,0,6);
INSERT INTO "rows" VALUES(8,'decision','glass',1764000000003,'{"kind":"decision","station":"glass","at_ms":1764000000003,"boot_id":"boot","monotonic_ms":8,"mode":"partial","verdict":"pass","action":"pass","audit_probability":0.0,"label":"good","confidence":0.98,"scores":{"good":0.98,"scratch":0.02},"bundle":{"name":"phone_glass","version":"1.0.0","digest":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size_bytes":1000},"runtime":"onnxruntime 1.23.0","policy":{"pass_max":0.1,"divert_min":0.9},"input":{"source":"folder","name":"3.jpg","digest":"e130dda22cdf4838ed88a40a451fee0235e714b04c3b74739f6b08b9d28e05de","media_type":"image/jpeg","size_bytes":27,"kept":true},"metrics":{"brightness":0.5},"latency_ms":{"infer":1.7,"total":2.1}}','3.jpg',1,NULL);
INSERT INTO "rows" VALUES(9,'outcome',NULL,1764000000103,'{"kind":"outcome","decision_seq":8,"at_ms":1764000000103,"state":"done","actuator":"log"}',NULL,0,8);
INSERT INTO "rows" VALUES(10,'decision','glass',1764000000004,'{"kind":"decision","station":"glass","at_ms":1764000000004,"boot_id":"boot","monotonic_ms":9,"mode":"partial","verdict":"defer","action":"hand_over","reason":"unsure","detail":"0.5","audit_probability":0.0,"label":"good","confidence":0.98,"scores":{"good":0.98,"scratch":0.02},"bundle":{"name":"phone_glass","version":"1.0.0","digest":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size_bytes":1000},"runtime":"onnxruntime 1.23.0","policy":{"pass_max":0.1,"divert_min":0.9},"input":{"source":"folder","name":"4.jpg","digest":"82bb5ef9bb122c101568cd578632eb6d25320cfbaf6615b51a31b9fd35aedfbe","media_type":"image/jpeg","size_bytes":27,"kept":true},"metrics":{"brightness":0.5},"latency_ms":{"infer":1.7,"total":2.1}}','4.jpg',1,NULL);
INSERT INTO "rows" VALUES(11,'outcome',NULL,1764000000104,'{"kind":"outcome","decision_seq":10,"at_ms":1764000000104,"state":"done","actuator":"log"}',NULL,0,10);
INSERT INTO "rows" VALUES(12,'decision','screw',1764000000005,'{"kind":"decision","station":"screw","at_ms":1764000000005,"boot_id":"boot","monotonic_ms":10,"mode":"partial","verdict":"pass","action":"pass","audit_probability":0.0,"label":"good","confidence":0.98,"scores":{"good":0.98,"scratch":0.02},"bundle":{"name":"phone_glass","version":"1.0.0","digest":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size_bytes":1000},"runtime":"onnxruntime 1.23.0","policy":{"pass_max":0.1,"divert_min":0.9},"input":{"source":"folder","name":"5.jpg","digest":"9de53d22c86b5ddab02a16802e20347789420248dd6d15455d1e49270bb491b9","media_type":"image/jpeg","size_bytes":27,"kept":true},"metrics":{"brightness":0.5},"latency_ms":{"infer":1.7,"total":2.1}}','5.jpg',1,NULL);
INSERT INTO "rows" VALUES(13,'telemetry','glass',60000,'{"kind":"telemetry","station":"glass","model":"phone_glass","bundle":null,"started_at_ms":0,"ended_at_ms":60000,"counts":{"decisions":6},"histograms":{"latency_ms.total":{"edges":[1.0,2.0],"counts":[0,6,0]}}}',NULL,0,NULL);
INSERT INTO "rows" VALUES(14,'decision','glass',1764000000009,'{"kind":"decision","station":"glass","at_ms":1764000000009,"boot_id":"boot","monotonic_ms":14,"mode"',NULL,1,NULL);
CREATE TABLE seen (
    station TEXT    NOT NULL,
    key     TEXT    NOT NULL,   -- the source's own identity of the input
    seq     INTEGER NOT NULL,   -- of the latest decision on it
    PRIMARY KEY (station, key)
) STRICT, WITHOUT ROWID;
INSERT INTO "seen" VALUES('glass','0.jpg',2);
INSERT INTO "seen" VALUES('glass','1.jpg',4);
INSERT INTO "seen" VALUES('glass','2.jpg',6);
INSERT INTO "seen" VALUES('glass','3.jpg',8);
INSERT INTO "seen" VALUES('glass','4.jpg',10);
INSERT INTO "seen" VALUES('screw','5.jpg',12);
CREATE TABLE state (
    only_row       INTEGER PRIMARY KEY CHECK (only_row = 1),
    incarnation    TEXT    NOT NULL,            -- made with the file; a new file is a new sequence
    stored_through INTEGER NOT NULL DEFAULT 0   -- the control plane has every row up to this seq
) STRICT;
INSERT INTO "state" VALUES(1,'0123456789abcdef0123456789abcdef',3);
CREATE TABLE uploads (
    position    INTEGER PRIMARY KEY,            -- order of sending
    digest      TEXT    NOT NULL UNIQUE,
    tries       INTEGER NOT NULL DEFAULT 0,     -- refusals so far
    put_aside   TEXT                            -- NULL: waiting; else why it is not tried any more
) STRICT;
INSERT INTO "uploads" VALUES(1,'7a6d17d2ba11d8d4e8897cb97e2f033f5fe1691c358f185ca703e46b5abb775a',0,NULL);
INSERT INTO "uploads" VALUES(3,'1290bf60f86535d207a9a6cd40656e67396490d97cb5e72a4b44e212d893a2c7',0,NULL);
INSERT INTO "uploads" VALUES(4,'e130dda22cdf4838ed88a40a451fee0235e714b04c3b74739f6b08b9d28e05de',0,NULL);
INSERT INTO "uploads" VALUES(5,'82bb5ef9bb122c101568cd578632eb6d25320cfbaf6615b51a31b9fd35aedfbe',0,NULL);
INSERT INTO "uploads" VALUES(6,'9de53d22c86b5ddab02a16802e20347789420248dd6d15455d1e49270bb491b9',0,NULL);
CREATE INDEX inputs_to_drop ON inputs (uploaded DESC, kept_at_ms, size_bytes);
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
DELETE FROM "sqlite_sequence";
COMMIT;
PRAGMA user_version = 2;
