"""`lineside-cloud demo`: the whole loop on this machine, told as it happens.

Rules:
- With `--once` it ends after the story, with exit code 0 only if everything in it was observed.
- Without, everything keeps running until Ctrl-C, which stops it all in order.
"""

import asyncio
import contextlib
import json
import signal
from pathlib import Path
from typing import Annotated

import httpx
import typer

from cloud.commands.shared import AsJson, exit_codes
from cloud.demo.reviewer import Reviewer
from cloud.demo.story import Say, Story
from cloud.demo.world import DEVICES, MODEL, set_up

NOT_OBSERVED = 1
DEFAULT_PORT = 8440


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path(".demo"),
    port: Annotated[int, typer.Option(help="Port of the console; 0 for a free one.", min=0, max=65535)] = DEFAULT_PORT,
    once: Annotated[bool, typer.Option("--once", help="End after the story; exit code 0 if all was observed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the whole loop on this machine: control plane, three boxes, a phone, and a story that is told live.

    Example: lineside-cloud demo --once
    """
    say = _say_json if as_json else _say
    with exit_codes():
        code = asyncio.run(_run(folder.resolve(), port=port, once=once, say=say))
    raise typer.Exit(code)


async def _run(folder: Path, *, port: int, once: bool, say: Say) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    told = asyncio.create_task(_tell(folder, port=port, once=once, say=say))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({told, stopped}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    stopped.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await told
    say("stopped")
    return NOT_OBSERVED if once else 0


async def _tell(folder: Path, *, port: int, once: bool, say: Say) -> int:
    say(f"Setting up in {folder}: keys, control plane, pictures …")
    world = await set_up(folder, port)
    say(f"Console: {world.url}\n")
    try:
        async with httpx.AsyncClient(base_url=world.url, timeout=10) as client:
            story = Story(world, client, Reviewer(client, MODEL, world.truth), say)
            feeding = [asyncio.create_task(_feed(story, device), name=f"feed-{device}") for device in DEVICES]
            observed = await story.tell()
            say(_ending(story, observed=observed))
            if not once:
                say(f"\nEverything keeps running: {world.url} · Ctrl-C stops it.")
                await asyncio.gather(*feeding)
            return 0 if observed else NOT_OBSERVED
    finally:
        story_tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith(("feed-", "reviewer"))]
        for task in story_tasks:
            task.cancel()
        await world.processes.stop_all()
        await world.network.close()


async def _feed(story: Story, device: str) -> None:
    while device not in story.world.feeders:
        await asyncio.sleep(0.1)
    await story.world.feeders[device].run()


def _ending(story: Story, *, observed: bool) -> str:
    reviewer = story.reviewer
    if not observed:
        return f"\nNot observed: {'; '.join(story.failed)}. Logs: {story.world.processes.logs}"
    return (
        f"\nAll of it was observed. The reviewer gave {reviewer.answered} answers and found {reviewer.escapes} defects "
        f"that had passed and {reviewer.false_rejects} good parts that had been thrown out."
    )


def _say(words: str) -> None:
    print(words, flush=True)


def _say_json(words: str) -> None:
    print(json.dumps({"told": words.strip()}, ensure_ascii=False), flush=True)
