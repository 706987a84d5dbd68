"""The review queue as cards: what to look at, what the machine thinks, and the answers with their keys.

Rules:
- The order is the queue's own; items whose picture or sound has not arrived stand behind those that can be judged.
- A number key names the class: for inspection that is a part to divert, for keywords the word that was said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloud.console.views.decisions import Input, input_of, threshold_words
from cloud.review import ReviewItem
from edge.wire.manifest import GOOD_LABEL

SHOWN = 12
"""Items sent with the page: enough ahead of a person, few enough pictures to load."""
LOOKED_AT = 60
"""Items looked through for ones that can be judged now."""
_KEYS = "123456789"
_DIGITS = frozenset("0123456789")
_SPOKEN = {
    word: str(i)
    for i, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
}
"""Words that have a key of their own, as digits have."""


@dataclass(frozen=True)
class AnswerButton:
    """One answer."""

    answer: str
    words: str
    look: str
    key: str
    """As the page's script gets it: names of keys, separated by spaces."""
    key_words: str
    label: str | None = None


@dataclass(frozen=True)
class ClassButton:
    """One class to name."""

    answer: str
    label: str
    key: str | None


@dataclass(frozen=True)
class ReviewCard:
    """One item to judge."""

    device: str
    incarnation: str
    seq: int
    station: str
    model: str | None
    version: str | None
    reason: str
    detail: str | None
    action: str
    at_ms: int
    label: str | None
    confidence: float | None
    text: str | None
    """What a recogniser of speech understood."""
    scores: list[tuple[str, float]]
    thresholds: str
    input: Input
    answers: list[AnswerButton]
    classes: list[ClassButton]
    classes_words: str


def cards(queue: Sequence[ReviewItem], labels: Mapping[str, list[str]]) -> list[ReviewCard]:
    """Return the items to show now, from the head of the queue.

    Args:
        queue: items in the order in which they should be looked at.
        labels: the labels of a bundle, by its digest.
    """
    first = sorted(queue, key=lambda item: not item.input_present)[:SHOWN]
    return [_card(item, labels.get(digest_of(item.body), [])) for item in first]


def digest_of(body: Mapping[str, Any]) -> str:
    """Return the digest of the bundle that decided, or an empty string."""
    return str((body.get("bundle") or {}).get("digest", ""))


def _card(item: ReviewItem, labels: list[str]) -> ReviewCard:
    body = item.body
    scores = body.get("scores") or {}
    known = labels or list(scores)
    inspects = GOOD_LABEL in known or not _is_sound(body)
    return ReviewCard(
        **{name: getattr(item, name) for name in ("device", "incarnation", "seq", "station", "model", "version")},
        reason=item.reason or "unsure",
        detail=body.get("detail"),
        action=str(body.get("action", "")),
        at_ms=item.decided_at_ms,
        label=body.get("label"),
        confidence=body.get("confidence"),
        text=body.get("text"),
        scores=sorted(scores.items(), key=lambda pair: -pair[1]),
        thresholds=threshold_words(body),
        input=input_of(body, item.input_digest, here=item.input_present),
        answers=_INSPECT if inspects else _keyword(body.get("label")),
        classes=_classes("divert" if inspects else "accept", [label for label in known if label != GOOD_LABEL]),
        classes_words="Divert, and name the defect" if inspects else "It was another word",
    )


def _is_sound(body: Mapping[str, Any]) -> bool:
    return str((body.get("input") or {}).get("media_type", "")).startswith("audio/")


_INSPECT = [
    AnswerButton("pass", "Pass", "pass", "p j", "P"),
    AnswerButton("divert", "Divert", "divert", "d k", "D"),
    AnswerButton("cant_tell", "Can’t tell", "", "space l", "Space"),
]


def _keyword(label: str | None) -> list[AnswerButton]:
    return [
        AnswerButton("accept", "Accept", "accept", "a p j", "A", label),
        AnswerButton("divert", "Wrong", "wrong", "w d k", "W"),
        AnswerButton("cant_tell", "Can’t tell", "", "space l", "Space"),
    ]


def _classes(answer: str, labels: Sequence[str]) -> list[ClassButton]:
    if labels and all(label in _DIGITS or label in _SPOKEN for label in labels):
        return [ClassButton(answer, label, _SPOKEN.get(label, label)) for label in labels]
    return [ClassButton(answer, label, _KEYS[i] if i < len(_KEYS) else None) for i, label in enumerate(labels)]
