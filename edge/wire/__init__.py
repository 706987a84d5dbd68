"""The contract that devices and the control plane both speak: topics, messages, rows, manifest.

The table of messages (a test holds it against the classes in `messages`, `rows` and `http`):

| kind      | direction       | topic      | QoS | retained | answered by                                  |
|-----------|-----------------|------------|-----|----------|----------------------------------------------|
| desired   | cloud → device  | `desired`  | 1   | yes      | `reported` with the same `config_version`    |
| reported  | device → cloud  | `reported` | 1   | yes      | nobody: full state, safe to repeat           |
| presence  | device → cloud  | `presence` | 1   | yes      | nobody: birth message and last will          |
| up        | device → cloud  | `up`       | 1   | no       | `ack`                                        |
| ack       | cloud → device  | `ack`      | 1   | no       | nobody: frees the outbox up to its sequence  |

An `up` batch carries rows, each with the sequence number that the device's own store gave it:

| row kind    | what it is                                                             |
|-------------|------------------------------------------------------------------------|
| decision    | one window decided, with all that explains it                          |
| outcome     | what became of the action that a decision asked for                    |
| event       | something changed or went wrong: swap, refusal, drift, gap, fallback   |
| telemetry   | one window of time as counts and mergeable histograms                  |

Rules:
- Everything travels as JSON in UTF-8; models are frozen; unknown fields are kept and passed on.
- Changes are additive. Golden JSON of every released version stands in `tests/contract/golden/`.
- Topics are `lineside/1/{device}/{channel}`; 1 is the version of this contract.
- Identity of a row is (device, incarnation, seq): a repeat is recognised, never stored twice.
- A broker's acknowledgement means nothing; only `ack` says that rows are stored.
- Pictures, sounds and bundles never travel by MQTT; they go over HTTP by digest (see `http`).
"""
