"""A scripted person at the review queue: answers over the same HTTP calls as the console, from what is really there.

Rules:
- Answers by what the pictures show, never by what the model said.
- Leaves items of other models in the queue, so that whoever watches the demo finds work at the console.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

NAME = "demo-reviewer"
AT_ONCE = 5
"""Answers under way at a time: a rollout waits for them, and one after the other spends its time waiting."""
AUDITS, DEFERRED = 40, 10
"""Looked at in one round: audits first, because a rollout waits for them."""
IDLE_S = 0.5


class Reviewer:
    """Answers what waits for one model."""

    def __init__(self, client: httpx.AsyncClient, model: str, truth: Mapping[str, str]) -> None:
        self._client = client
        self._model = model
        self._truth = truth
        self.answered = 0
        self.escapes = 0
        """Defective parts that a device had passed by itself."""
        self.false_rejects = 0

    async def run(self) -> None:
        """Answer for ever; a control plane that is away for a moment is waited for."""
        while True:
            try:
                await self._round()
            except httpx.HTTPError:
                await asyncio.sleep(IDLE_S)

    async def _round(self) -> None:
        waiting = await self._waiting("audit", AUDITS) + await self._waiting("deferred", DEFERRED)
        mine = [item for item in waiting if item["model"] == self._model and item["input_digest"] in self._truth]
        if not mine:
            await asyncio.sleep(IDLE_S)
        for start in range(0, len(mine), AT_ONCE):
            await asyncio.gather(*(self._answer(item) for item in mine[start : start + AT_ONCE]))

    async def _waiting(self, part: str, last: int) -> list[dict[str, Any]]:
        response = await self._client.get("/v1/review/queue", params={"part": part, "last": last})
        return list(response.raise_for_status().json()["items"])

    async def _answer(self, item: dict[str, Any]) -> None:
        label = self._truth[item["input_digest"]]
        answer = "pass" if label == "good" else "divert"
        path = f"/v1/review/{item['device']}/{item['incarnation']}/{item['seq']}"
        body = {"answer": answer, "label": label, "reviewer": NAME}
        response = await self._client.post(path, json=body)
        if response.status_code == httpx.codes.CREATED:
            self.answered += 1
            self.escapes += item["body"]["verdict"] == "pass" and answer == "divert"
            self.false_rejects += item["body"]["verdict"] == "divert" and answer == "pass"
