"""The plan of a rollout: which devices, in which stages, behind which gates; readable as TOML or JSON; pure.

Rules:
- A plan file says only what differs from the defaults; all its mistakes are told at once, each with its line and, for
  an unknown word, the nearest known one.
- `PlanShape` is what a person writes, `Plan` is that with the model, version and digest it is started for.
- The plan is fixed when the rollout starts: errors and priors of its gates must not change while one looks.
"""

import json
import tomllib
from collections.abc import Collection, Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cloud import json_lines
from cloud.errors import ConfigError
from cloud.gates import GateSpec
from cloud.windows import Window
from edge.mistakes import Mistake, mistakes_in, told
from edge.toml_lines import line_of
from edge.wire.base import Digest, Name, Version

StageKind = Literal["shadow", "canary", "ramp", "switch"]
Strategy = Literal["staged", "blue_green"]

ERROR = 0.05
"""Probability that a rollout takes back a version that is no worse, and that it lets one by that is worse by a
margin: one in twenty, as is usual; half of it costs about a tenth more evidence."""
CANARY_SHARE = 0.1
"""Of the cohort: large enough to hold several strata, small enough that a bad version is a local matter."""
RAMP_SHARE = 0.5
"""Half, so that the control group is still as large as the other arm."""
MIN_S = 300.0
"""A version must be seen warm: caches, memory and temperature settle within minutes."""
MAX_S = 86_400.0
"""A day holds every shift; evidence that did not come by then is not coming."""
SHADOW_MAX_S = 3_600.0
"""An hour brings a bundle over a slow link; who is still away joins later."""
ABSENT_AFTER_S = 120.0
"""Beyond this silence a chosen device gives its place to another one and joins later."""
BASELINE_S = 3_600.0
"""How far back the old version's decisions count where no control group is left."""
MAX_REFUSED_SHARE = 0.2
"""When more of the cohort than this will not take the bundle, it is the bundle."""
MAX_OWN_ROLLBACKS = 0
"""Devices that may go back by themselves before all do: a crash on one box is reason enough."""
MAX_STAGES = 16
MAX_GATES = 16
"""Bounds on a document from outside; every gate also takes its share of the error."""

SAFETY_GATES = (
    GateSpec(metric="deferral", margin=0.05),
    GateSpec(metric="errors", margin=0.01),
    GateSpec(metric="deadline", margin=0.01),
)
"""What shows without a person."""
LABEL_GATE = GateSpec(metric="wrong", margin=0.05, weight=2.0)
"""What only people can tell; it gets twice the share of the error, because labels are dear."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cohort(_Part):
    """Which devices take part, of those that run the model; empty lists mean all of them."""

    sites: list[str] = Field(default_factory=list, max_length=1000)
    profiles: list[str] = Field(default_factory=list, max_length=1000)
    tags: list[str] = Field(default_factory=list, max_length=1000)
    """Devices that bear at least one of them."""
    devices: list[Name] = Field(default_factory=list, max_length=10_000)

    def holds(self, device: str, site: str, profile: str, tags: Collection[str] = ()) -> bool:
        """Return whether a device that runs the model belongs to the cohort."""
        return (
            (not self.sites or site in self.sites)
            and (not self.profiles or profile in self.profiles)
            and (not self.tags or not set(self.tags).isdisjoint(tags))
            and (not self.devices or device in self.devices)
        )

    @property
    def everyone(self) -> bool:
        """Whether it is every device that runs the model."""
        return not (self.sites or self.profiles or self.tags or self.devices)

    def may_overlap(self, other: "Cohort") -> bool:
        """Return whether some device, known or not, could belong to both; a device may bear any tags at once."""
        pairs = ((self.sites, other.sites), (self.profiles, other.profiles), (self.devices, other.devices))
        return not any(a and b and not set(a) & set(b) for a, b in pairs)


class Stage(_Part):
    """One step of the plan.

    `shadow` puts the bundle on the devices' disks while the old one decides; in `canary` and `ramp` it decides on some
    devices beside a control group; `switch` turns all devices at once that hold it.
    """

    kind: StageKind
    share: float | None = Field(default=None, gt=0, le=1)
    """Of the cohort, rounded down, at least one device."""
    devices: int | None = Field(default=None, ge=1)
    """Number of devices instead of a share."""
    min_s: float = Field(default=MIN_S, ge=0)
    """Not shorter than this, however clear the evidence."""
    max_s: float = Field(default=MAX_S, gt=0)
    """Not longer: then the rollout is taken back, or held, for want of evidence."""
    window: Window | None = None
    """Devices are changed in these hours only: the bundle is fetched in them (`shadow`), or begins to decide (all other
    kinds). The stage's clock stands still until they come. Going back waits for no window."""
    download_early: bool = True
    """With a window: devices fetch the bundle before it, so that in it they only switch."""
    gates: list[GateSpec] = Field(default_factory=list, max_length=MAX_GATES)

    @model_validator(mode="after")
    def _consistent(self) -> "Stage":
        if problems := "; ".join(self._problems()):
            raise ValueError(problems)
        return self

    def _problems(self) -> Iterator[str]:
        if self.share is not None and self.devices is not None:
            yield "share and devices: give one of them"
        if self.share is None and self.devices is None and self.kind in ("canary", "ramp"):
            yield f"a stage of kind {self.kind} needs share or devices"
        if self.kind == "switch" and (self.devices is not None or (self.share or 1.0) < 1.0):
            yield "a stage of kind switch turns all devices at once: leave share and devices out"
        if self.kind == "shadow" and any(not gate.paired for gate in self.gates):
            yield "the gate of a stage of kind shadow is disagreement: the candidate decides nothing in it"
        if self.kind != "shadow" and any(gate.paired for gate in self.gates):
            yield "the gate disagreement belongs to a stage of kind shadow: nowhere else do both judge the same input"
        if self.min_s > self.max_s:
            yield f"min_s {self.min_s} must not exceed max_s {self.max_s}"
        keys = [gate.key for gate in self.gates]
        if len(set(keys)) != len(keys):
            yield f"each gate once in a stage, got {', '.join(keys)}"

    @property
    def full(self) -> bool:
        """Whether every device gets its turn, also those that are away."""
        return self.devices is None and (self.share is None or self.share >= 1.0)

    def quota(self, cohort: int) -> int:
        """Return how many devices of a cohort may run the candidate; one stays behind as control unless full."""
        if self.full:
            return cohort
        wanted = self.devices if self.devices is not None else int((self.share or 0.0) * cohort + 1e-9)
        return max(min(1, cohort), min(wanted, cohort - 1))


class PlanShape(_Part):
    """What a person writes into a plan file."""

    strategy: Strategy = "staged"
    cohort: Cohort = Cohort()
    stages: list[Stage] = Field(default_factory=list, max_length=MAX_STAGES)
    """Empty: the strategy's default stages."""
    error: float = Field(default=ERROR, gt=0, le=0.5)
    """Of taking back a version that is no worse, and of letting one by that is worse by a margin."""
    on_timeout: Literal["roll_back", "hold"] = "roll_back"
    absent_after_s: float = Field(default=ABSENT_AFTER_S, ge=1)
    baseline_s: float = Field(default=BASELINE_S, ge=0)
    max_refused_share: float = Field(default=MAX_REFUSED_SHARE, ge=0, le=1)
    max_own_rollbacks: int = Field(default=MAX_OWN_ROLLBACKS, ge=0)

    max_parallel_downloads: int | None = Field(default=None, ge=1)
    """Devices that fetch the bundle at one time, of those that can be reached; no bound unless said."""

    @model_validator(mode="after")
    def _makes_sense(self) -> "PlanShape":
        if not self.stages:
            object.__setattr__(self, "stages", default_stages(self.strategy))
        last = self.stages[-1]
        problems = list(_order_problems(self.strategy, [stage.kind for stage in self.stages], full=last.full))
        fixed = sum(gate.error or 0.0 for stage in self.stages for gate in stage.gates)
        shared = any(gate.error is None for stage in self.stages for gate in stage.gates)
        if fixed > self.error or (shared and fixed == self.error):
            problems.append(
                f"the errors of the gates add up to {fixed:g}, the plan's error of {self.error:g} leaves less"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def fail_error(self, gate: GateSpec) -> float:
        """Return the gate's share of the error of failing: its own, or what those leave, by weight (Bonferroni)."""
        if gate.error is not None:
            return gate.error
        gates = [g for stage in self.stages for g in stage.gates]
        left = self.error - sum(g.error or 0.0 for g in gates)
        return left * gate.weight / sum(g.weight for g in gates if g.error is None)


class Plan(PlanShape):
    """A plan for one bundle."""

    model: Name
    version: Version
    digest: Digest

    @classmethod
    def of(cls, shape: PlanShape, *, model: str, version: str, digest: str) -> "Plan":
        """Return the shape with its bundle."""
        return cls(**shape.model_dump(), model=model, version=version, digest=digest)


def for_system(shape: PlanShape) -> PlanShape:
    """Return the shape as it suits an operating system: without gates, because decisions name models, not systems.

    What takes it back is devices that went back by themselves (`max_own_rollbacks`). A plan that names no stages gets a
    tenth, half, all.

    Raises:
        ValueError: the plan has gates of its own, which would wait for evidence that never comes.
    """
    if shape.stages == default_stages(shape.strategy):
        stages = [stage.model_copy(update={"gates": []}) for stage in shape.stages if stage.kind != "shadow"]
        stages = [Stage(kind="shadow", share=1.0, min_s=0.0), *stages] if shape.strategy == "blue_green" else stages
        return shape.model_copy(update={"stages": stages})
    gated = [gate.key for stage in shape.stages for gate in stage.gates]
    if gated:
        raise ValueError(f"gates ({', '.join(gated)}) count decisions of a model; leave them out for a system")
    return shape


def default_stages(strategy: Strategy) -> list[Stage]:
    """Return the stages of a plan that names none."""
    shadow = Stage(kind="shadow", share=1.0, min_s=0.0, max_s=SHADOW_MAX_S)
    if strategy == "blue_green":
        return [shadow, Stage(kind="switch", gates=[*SAFETY_GATES, LABEL_GATE])]
    return [
        shadow,
        Stage(kind="canary", share=CANARY_SHARE, gates=[*SAFETY_GATES, LABEL_GATE]),
        Stage(kind="ramp", share=RAMP_SHARE, gates=[*SAFETY_GATES, LABEL_GATE]),
        Stage(kind="ramp", share=1.0, gates=list(SAFETY_GATES)),
    ]


def parse_plan(text: str, *, name: str = "plan") -> PlanShape:
    """Return the plan in a TOML or JSON text (JSON starts with a brace).

    Raises:
        ConfigError: it is neither, or says something impossible; the message names every mistake with its line.
    """
    is_json = text.lstrip().startswith("{")
    try:
        document = json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: expected TOML or JSON, got {error}", hint="see cloud/demo_plan.toml") from error
    try:
        return PlanShape.model_validate(document)
    except ValidationError as error:
        mistakes = [*mistakes_in(PlanShape, error), *_order_mistakes(document, error)]
        listed = told(text, mistakes, json_lines.line_of if is_json else line_of)
        raise ConfigError(f"{name}: {listed}", hint="see cloud/demo_plan.toml") from error


def _order_problems(strategy: str, kinds: list[str], *, full: bool) -> Iterator[str]:
    if kinds[-1] == "shadow" or not full:
        yield "the last stage must reach every device: a ramp with share 1.0, or a switch"
    if strategy == "blue_green" and kinds != ["shadow", "switch"]:
        yield f"blue_green has the stages shadow and switch, got {', '.join(kinds)}"
    if strategy == "staged" and "shadow" in kinds[1:]:
        yield "shadow comes first, if at all"


def _order_mistakes(document: dict[str, Any], error: ValidationError) -> Iterator[Mistake]:
    """Give what is wrong with the order of the stages where mistakes within them have kept it from being checked."""
    stages = document.get("stages")
    if any(not item["loc"] for item in error.errors()) or not isinstance(stages, list) or not stages:
        return
    kinds = [str(stage.get("kind")) for stage in stages if isinstance(stage, dict)]
    last = stages[-1]
    if len(kinds) == len(stages):
        full = "devices" not in last and last.get("share") in (None, 1, 1.0)
        for words in _order_problems(str(document.get("strategy", "staged")), kinds, full=full):
            yield Mistake(("stages", len(stages) - 1), words)
