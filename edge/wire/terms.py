"""The words of the field that both sides use, as closed sets."""

from typing import Literal, get_args

Task = Literal["inspect", "keyword"]

Mode = Literal["human", "shadow", "assist", "partial", "full"]
"""Degree of automation: record only; model records and a person decides; model suggests and a person
decides; model decides what it is sure of; model decides everything it can."""

Verdict = Literal["pass", "divert", "accept", "defer"]
"""`pass` and `divert` for inspection, `accept` for keywords, `defer` for both."""

DeferReason = Literal[
    "unsure",
    "out_of_distribution",
    "bad_input",
    "deadline",
    "model_error",
    "audit",
    "disagreement",
]

SlotState = Literal["empty", "staged", "trial", "good", "bad"]

Action = Literal["pass", "divert", "accept", "hand_over", "safe", "none"]
"""What the station is told to do: let the part on, throw it out, take the word, give it to a person,
the station's safe action, or nothing because a person decides."""

OutcomeState = Literal["done", "failed", "unknown"]

MODES: tuple[Mode, ...] = get_args(Mode)
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
DEFER_REASONS: tuple[DeferReason, ...] = get_args(DeferReason)
SLOT_STATES: tuple[SlotState, ...] = get_args(SlotState)
