"""The demo's story: what is done, what must then be seen, told in plain words while it happens.

Rules:
- A chapter ends when what it promises was observed through the control plane's own answers, or fails in time.
- Nothing is told that was not observed.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from cloud.demo.reviewer import Reviewer
from cloud.demo.world import BOXES, DEVICES, MODEL, PHONE, World, start_device
from cloud.errors import CloudError

LOOK_EVERY_S = 0.25
CHAPTER_S = 90.0
"""Longest wait for what a chapter promises: three times what it takes on two quiet cores."""
PLAN = Path(__file__).resolve().parents[1] / "demo_plan.toml"
GOOD, BAD = "1.1.0", "1.2.0"
UNAUDITED = "the story shows what the gates find out, so it begins without an audit"
DIM_BOX, CUT_DEVICE = "box-3", "box-2"
CUT_S = 6.0

Seen = TypeVar("Seen")
Say = Callable[[str], None]


@dataclass
class Story:
    """Tells and checks. Belongs to one event loop."""

    world: World
    client: httpx.AsyncClient
    reviewer: Reviewer
    say: Say
    failed: list[str] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)

    async def tell(self) -> bool:
        """Go through all chapters; return whether everything was observed."""
        chapters: list[tuple[str, Callable[[], Awaitable[str]]]] = [
            ("four devices enrol and are fresh", self._enrol),
            ("pictures and words flow and are judged", self._flow),
            ("what a device is unsure of waits for a person", self._queue),
            (f"{MODEL} {GOOD} goes to one box first, then to the others", self._good_version),
            (f"{MODEL} {BAD}, trained on broken labels, is caught and taken back", self._bad_version),
            (f"the lights dim at {DIM_BOX}: deferrals and a drift warning show it", self._dim),
            (f"{CUT_DEVICE} lost its network for a while: nothing is missing", self._nothing_missing),
        ]
        for title, chapter in chapters:
            await self._chapter(title, chapter)
        return not self.failed

    async def _chapter(self, title: str, chapter: Callable[[], Awaitable[str]]) -> None:
        try:
            async with asyncio.timeout(CHAPTER_S):
                seen = await chapter()
        except TimeoutError:
            self.failed.append(title)
            self._tell(f"✗ {title}: not seen within {CHAPTER_S:.0f} s")
        except CloudError as error:
            self.failed.append(title)
            self._tell(f"✗ {title}: {error}")
        else:
            self._tell(f"✓ {title}\n         {seen}")

    async def _enrol(self) -> str:
        await asyncio.gather(*(start_device(self.world, device) for device in DEVICES))

        async def all_fresh() -> list[dict[str, Any]] | None:
            views = await self._get("/v1/devices")
            return views if len(views) == len(DEVICES) and all(v["freshness"] == "fresh" for v in views) else None

        views = await self._until(all_fresh)
        return ", ".join(f"{view['device']} ({view['profile']}, {view['site']})" for view in views)

    async def _flow(self) -> str:
        async def everyone_decided() -> dict[str, int] | None:
            counts = {device: len(await self._decisions(device, 20)) for device in DEVICES}
            return counts if all(count >= (3 if d == PHONE else 20) for d, count in counts.items()) else None

        await self._until(everyone_decided)
        last = (await self._decisions(BOXES[0], 1))[0]
        judged = f"{last['verdict']} ({last.get('label') or last.get('reason')})"
        return f"{BOXES[0]} says {judged} in {last['latency_ms']['total']:.1f} ms"

    async def _queue(self) -> str:
        async def unsure() -> dict[str, Any] | None:
            queue = await self._get("/v1/review/queue", last=200)
            items = [i for i in queue["items"] if i["reason"] == "unsure" and i["input_present"]]
            return {"waiting": queue["waiting"], "item": items[0]} if items else None

        seen = await self._until(unsure)
        asyncio.get_running_loop().create_task(self.reviewer.run(), name="reviewer")
        waiting = f"{seen['waiting']} wait, first from {seen['item']['device']}"
        return f"{waiting}; a scripted reviewer begins to answer ({self.world.url}/review)"

    async def _good_version(self) -> str:
        rollout = await self._roll_out(GOOD)
        self.world.network.pull(CUT_DEVICE)
        asyncio.get_running_loop().call_later(CUT_S, self.world.network.plug, CUT_DEVICE)
        self._tell(f"  the network cable of {CUT_DEVICE} is pulled for {CUT_S:.0f} s; it goes on deciding")
        first = await self._until(lambda: self._serving_somewhere(GOOD))
        self._tell(f"  {first} decides with {GOOD}, the others with 1.0.0 beside it")
        await self._rollout_ends(rollout, "done")
        await self._until(lambda: self._serving_everywhere(GOOD))
        return f"its gates passed; {', '.join(BOXES)} decide with {GOOD} now"

    async def _bad_version(self) -> str:
        rollout = await self._roll_out(BAD)
        first = await self._until(lambda: self._serving_somewhere(BAD))
        self._tell(f"  {first} decides with {BAD}")
        why = await self._rollout_ends(rollout, "rolled_back")
        await self._until(lambda: self._serving_everywhere(GOOD))
        return f"{why}; every box decides with {GOOD} again"

    async def _dim(self) -> str:
        before = await self._deferral_share(DIM_BOX)
        since_ms = time.time() * 1000
        self.world.feeders[DIM_BOX].pool = self.world.pools["dim"]
        self._tell(f"  the lamp over {DIM_BOX} fails")

        async def drifting() -> dict[str, Any] | None:
            events = await self._get(f"/v1/devices/{DIM_BOX}/events", last=100)
            found = [e for e in events if e["name"] == "drift_raised" and e["at_ms"] >= since_ms]
            return found[-1] if found else None

        warning = await self._until(drifting)

        async def deferring() -> float | None:
            share = await self._deferral_share(DIM_BOX)
            return share if share > before + 0.15 else None

        after = await self._until(deferring)
        return f"deferrals {before:.0%} → {after:.0%}; {warning['detail']}"

    async def _nothing_missing(self) -> str:
        self.world.feeders[CUT_DEVICE].paused = True

        async def all_there() -> tuple[int, int] | None:
            on_device = _decisions_on(self.world.folder / CUT_DEVICE / "data" / "lineside.sqlite")
            in_cloud = _decisions_in(self.world.folder / "cloud" / "cloud.sqlite", CUT_DEVICE)
            return (len(on_device), len(in_cloud)) if on_device and on_device == in_cloud else None

        device, cloud = await self._until(all_there)
        self.world.feeders[CUT_DEVICE].paused = False
        return f"{device} decisions on the device, {cloud} in the cloud, the same ones, each once"

    async def _roll_out(self, version: str) -> str:
        bundle = str(self.world.bundle(version))
        call = self.world.processes.call
        await call("cloud", "models", "publish", bundle, "--keys", "keys", "--server", self.world.url, "--json")
        start = ("cloud", "rollouts", "start", MODEL, version, "--plan", str(PLAN), "--unaudited", UNAUDITED)
        started = await call(*start, "--server", self.world.url, "--json")
        self._tell(f"  {MODEL} {version} is published and its rollout started")
        return str(started["id"])

    async def _rollout_ends(self, rollout: str, status: str) -> str:
        async def ended() -> dict[str, Any] | None:
            view = await self._get(f"/v1/rollouts/{rollout}")
            return None if view["status"] in ("running", "paused") else view

        view = await self._until(ended)
        why = str(view["log"][-1]["reason"])
        if view["status"] != status:
            raise CloudError(f"expected the rollout to end as {status}, it is {view['status']}: {why}")
        return next((str(e["reason"]) for e in reversed(view["log"]) if e["step"] == "gate_failed"), why)

    async def _serving(self) -> dict[str, str]:
        views = await self._get("/v1/devices")
        stations = {v["device"]: ((v["reported"] or {}).get("stations") or {}).get("main") for v in views}
        return {d: s["serving"]["version"] for d, s in stations.items() if d in BOXES and s and s["serving"]}

    async def _serving_somewhere(self, version: str) -> str | None:
        return next((device for device, serving in (await self._serving()).items() if serving == version), None)

    async def _serving_everywhere(self, version: str) -> bool | None:
        serving = await self._serving()
        return True if len(serving) == len(BOXES) and set(serving.values()) == {version} else None

    async def _deferral_share(self, device: str) -> float:
        last = await self._decisions(device, 100)
        deferred: int = sum(decision["verdict"] == "defer" for decision in last)
        return deferred / max(1, len(last))

    async def _decisions(self, device: str, last: int) -> list[dict[str, Any]]:
        found = await self._get(f"/v1/devices/{device}/decisions", last=last)
        return list(found)

    async def _get(self, path: str, **params: Any) -> Any:
        response = await self.client.get(path, params=params)
        return response.raise_for_status().json()

    async def _until(self, look: Callable[[], Awaitable[Seen | None]]) -> Seen:
        """Look until there is something to see."""
        while True:
            self.world.processes.check()
            try:
                seen = await look()
            except httpx.HTTPError:
                seen = None
            if seen is not None:
                return seen
            await asyncio.sleep(LOOK_EVERY_S)

    def _tell(self, words: str) -> None:
        self.say(f"{time.monotonic() - self.began_s:5.1f} s  {words}")


def _decisions_on(path: Path) -> set[tuple[str, int]]:
    query = "SELECT (SELECT incarnation FROM state), seq FROM rows WHERE kind = 'decision'"
    return _pairs(path, query)


def _decisions_in(path: Path, device: str) -> set[tuple[str, int]]:
    return _pairs(path, f"SELECT incarnation, seq FROM decisions WHERE device = '{device}'")  # noqa: S608 - our own name


def _pairs(path: Path, query: str) -> set[tuple[str, int]]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return {(str(incarnation), int(seq)) for incarnation, seq in connection.execute(query)}
    finally:
        connection.close()
