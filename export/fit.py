"""From a folder to a signed bundle: check, compare with simple models, train, prove, pack, audit, sign, report.

Rules:
- Every file is judged by a network that never saw its group; those judgements fit the calibration, prove the
  thresholds and are what the audit sees. The network that is shipped has learned from all of them.
- Where the data brings its own test split, the shipped network never saw it and the split proves.
- What was finished is on disk, so that the same command goes on where it was broken off.
"""

import json
import resource
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.bundle import Bundle, load
from edge.calibrate import probabilities
from edge.errors import ModelError
from edge.wire.base import BundleRef
from edge.wire.manifest import GOOD_LABEL, ImageInput, ModelFile
from export import (
    checks,
    choosing,
    dataset,
    evidence,
    formats,
    golden,
    limits,
    pack,
    plan,
    scores,
    signing,
    speed,
    worst,
)
from export.build import build_bundle
from export.dataset import Dataset
from export.evidence import Judged
from export.floating import float_file
from export.formats import Choice
from export.progress import Stages
from export.provenance import code_commit
from export.quantize import quantize
from export.rawinputs import RawInputs
from export.recipe import BuildData, Labelled, Precision, Recipe
from export.recorded import of_manifest
from export.runs import Runs
from export.summary import in_words
from export.tflite import write_tflite

_PILOT_PARTS = 4
"""One part in so many of the judged groups fits the calibration; the others prove."""
_RANGE_EXAMPLES = 128
_REFERENCES = 400
_HELDOUT_BYTES = 1_500_000_000
_TOLERANCE_EXAMPLES = 16
_GOLDEN = 4
_GOLDEN_STEP, _GOLDEN_LEVELS = 8, 32
_CHOOSING = "choosing engine and precision"
_CROSS_NOTE = (
    "each file judged by a network that never saw its group; the network that is shipped has learned from all groups"
)
_UNGROUPED_NOTE = "nobody said which files show the same part, so each counts as a part of its own"


@dataclass(frozen=True)
class Fitted:
    """What a fit made."""

    ref: BundleRef
    path: Path
    report: Path
    signature: Path
    run: str
    words: list[str]
    """The summary, in plain words."""
    facts: dict[str, Any]


def fit(options: plan.Options, *, quiet: bool = False) -> Fitted:
    """Make a bundle from a folder.

    Raises:
        ConfigError: the data or the options are not usable.
        ModelError: the network could not be quantized.
    """
    began_s = time.monotonic()
    found = dataset.load(options.data, options.task, good=options.good, group=options.group)
    rules = limits.read(options.limits) if options.limits else None
    speed.estimate(0.0, options.profile)  # a factor that is none is said before the work
    formats.asked(options.prefer, options.precision)  # and so is what does not go together
    digest = found.digest()
    runs = Runs(options.out)
    code = code_commit()
    run = runs.begin(
        name=options.name,
        version=options.version,
        command="fit",
        code=code,
        dataset_digest=digest,
        settings={**options.settings(), "format": options.format()},
    )
    try:
        work = _Work(options, found, digest, code, rules, quiet=quiet)
        made = work.run(run)
    except KeyboardInterrupt:
        runs.end(run, "interrupted")
        raise
    except BaseException as error:
        runs.end(run, "failed", results={"error": f"{type(error).__name__}: {error}"})
        raise
    seconds = round(time.monotonic() - began_s, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resources = {"seconds": seconds, "peak_memory_bytes": peak, "threads": options.threads}
    artefacts = {"bundle": str(made.path), "digest": made.ref.digest, "report": str(made.report)}
    runs.end(run, "done", results=made.facts, resources=resources, artefacts=artefacts)
    from export.mlflow import send

    problem = send(runs.get(run), [made.path, made.report])
    return replace(made, words=[*made.words, *([problem] if problem else [])])


def as_before(options: plan.Options, digest: str, code: str) -> Choice | None:
    """Return what an earlier run of the same command on the same data and code chose: it is not measured again."""
    wanted = {**options.settings(), "format": options.format()}
    for run in Runs(options.out).list(name=options.name, state="done", dataset=digest):
        if run.code == code and run.settings == json.loads(json.dumps(wanted, default=str)):
            return formats.of_plain(run.results.get("format", {}), f"as run {run.id} chose")
    return None


@dataclass(frozen=True)
class _Scored:
    """The judged items: which they are, and the logits of networks that never saw them."""

    places: NDArray[np.intp]
    logits: NDArray[np.float32] | None
    """None: the shipped network itself never saw them."""


class _Work:
    """One fit on its way; stages in the order of `run`."""

    def __init__(
        self,
        options: plan.Options,
        found: Dataset,
        digest: str,
        code: str,
        rules: limits.Limits | None,
        *,
        quiet: bool,
    ) -> None:
        self.options, self.loaded = options, found
        self.digest, self.code, self.rules, self.quiet = digest, code, rules, quiet
        self.choice = formats.asked(options.prefer, options.precision) or as_before(options, digest, code)

    def run(self, run: str) -> Fitted:
        """Do all of it."""
        import torch

        from export.training import probe

        torch.set_num_threads(self.options.threads)
        guess = {"checking the data": len(self.loaded.items) * 0.02 + 2}
        with Stages(guess, quiet=self.quiet) as stages, stages.stage("checking the data") as step:
            checked = checks.check(self.loaded, self.options.seed, step)
        self.data, self.checked = checked.dataset, checked
        self.side_figures: dict[int, float] = {}
        tried = plan.sides_to_try(checked.facts, self.options)
        if tried:
            name = "choosing the size of pictures"
            with Stages({name: 12.0 * len(tried)}, quiet=self.quiet) as stages, stages.stage(name) as step:
                side, self.side_figures = probe.best_side(self.data, tried, self.options.seed, step)
            self.options = replace(self.options, side=side)
        self.plan = plan.make(self.data, checked.facts, self.options)
        self.labels = np.array([self.data.labels.index(item.label) for item in self.data.items])
        self.folder = (
            self.options.out
            / f".fit-{self.options.name}-{self.plan.key(self.digest + choosing.sources(), self.options)}"
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        with choosing.alone(self.folder):
            return self._rest(guess, run)

    def _rest(self, guess: dict[str, float], run: str) -> Fitted:
        """Do what is kept on disk on the way."""
        rest = {name: seconds for name, seconds in self.plan.seconds.items() if name not in guess}
        with Stages({**rest, _CHOOSING: 4.0}, quiet=self.quiet) as self.stages:
            self._pool()
            self.learns = self._sanity()
            scored = self._score()
            network = self._train("network", self._trainable(), self.plan.steps, "training")
            self._choose(network, self._trainable())
            with self.stages.stage("quantizing and measuring"):
                built = self._build(network, scored)
            with self.stages.stage("packing"):
                fitted = self._finish(built, network, scored, run)
        shutil.rmtree(self.folder, ignore_errors=True)
        return fitted

    def _pool(self) -> None:
        """Make the changed copies, and say what is trained on them."""
        from export.training import pictures, sounds

        seed = self.options.seed
        with self.stages.stage("making changed copies") as step:
            if isinstance(self.plan.input, ImageInput):
                good = self.data.labels.index(GOOD_LABEL) if GOOD_LABEL in self.data.labels else None
                pool = pictures.make_pool(self.data.items, self.plan.input, self.plan.copies, self.folder, seed, step)
                self.owner = pool.owner
                self.task = pictures.task(pool, self.labels, len(self.data.labels), good, seed)
            else:
                heard = sounds.make_pool(self.data.items, self.plan.input, self.plan.copies, self.folder, seed, step)
                self.owner = heard.owner
                self.task = sounds.task(heard, self.labels, len(self.data.labels), seed)

    def _sanity(self) -> bool:
        """Return whether the network learns ten examples by heart."""
        from export.training.loop import overfits

        with self.stages.stage("learning ten by heart"):
            first = self.plan.copies * np.array(choosing.evenly(self.labels))
            return overfits(self.task, first, self.labels[self.owner[first]], self.options.seed)

    def _trainable(self) -> NDArray[np.bool_]:
        return np.array([item.split != "test" for item in self.data.items])

    def _score(self) -> _Scored:
        """Judge every group by a network that never saw it."""
        if not self.plan.folds:
            return _Scored(np.flatnonzero(~self._trainable()), None)
        folds = plan.folds_of(self.data, self.plan.folds, self.options.seed)
        kept = self._affordable()
        logits = np.zeros((len(self.labels), len(self.data.labels)), np.float32)
        for fold in range(self.plan.folds):
            name = f"training without part {fold + 1} of {self.plan.folds}"
            unseen = np.flatnonzero((folds == fold) & kept)
            network = self._train(f"fold-{fold}", folds != fold, self.plan.fold_steps, name)
            precision = self._choose(network, folds != fold).precision
            place = self.folder / f"fold-{fold}-{precision}.npy"
            if not place.exists():
                spec, content = self._file(network, self._ranges(folds != fold), precision)
                answers = golden.outputs(content, spec, self._values(unseen))
                choosing.save(place, answers[:, : len(self.data.labels)])
            logits[unseen] = np.load(place)
        places = np.flatnonzero(kept)
        return _Scored(places, logits[places])

    def _choose(self, network: onnx.ModelProto, seen: NDArray[np.bool_]) -> Choice:
        """Return what ships, decided once, on the first network that is trained: its weights do not matter for it."""
        kept = self.folder / "format.json"
        if self.choice is None and kept.exists():
            self.choice = formats.of_plain(json.loads(kept.read_text()), "kept from before it was stopped")
        if self.choice is None:
            with self.stages.stage(_CHOOSING):
                self.choice = self._measured(network, self._ranges(seen))
            kept.write_text(json.dumps(self.choice.plain()))
        return self.choice

    def _measured(self, network: onnx.ModelProto, ranges: NDArray[Any]) -> Choice:
        """Return what is faster here by far, on one network in all the forms that could ship."""
        options = self.options
        quantized = quantize(network, ranges)
        files: speed.Files = {"onnx": (quantized.spec, quantized.shipped)}
        with suppress(ModelError):  # where LiteRT cannot take the network there is no choice about it
            content, spec = write_tflite(quantized)
            files["tflite"] = (spec, content)
        files[speed.FLOAT] = self._file(network, ranges, "float32")
        speeds = speed.of_files(files, ranges, options.device_threads)
        if min(item.relative for item in speeds.values()) * formats.MARGIN <= 1:
            speeds = speed.with_memory(speeds, files)
        return formats.choose(speeds, options.device_threads, options.prefer, options.precision)

    def _file(self, network: onnx.ModelProto, ranges: NDArray[Any], precision: Precision) -> tuple[ModelFile, bytes]:
        if precision == "float32":
            content, spec = float_file(network, ranges[:_TOLERANCE_EXAMPLES])
            return spec, content
        quantized = quantize(network, ranges)
        return quantized.spec, quantized.shipped

    def _ranges(self, items: NDArray[np.bool_]) -> NDArray[Any]:
        return self._values(choosing.some(np.flatnonzero(items), _RANGE_EXAMPLES, self.options.seed))

    def _affordable(self) -> NDArray[np.bool_]:
        """Return which items are judged: all, or as many groups as fit into memory."""
        spec = self.plan.input
        each = spec.width * spec.height * 3 if isinstance(spec, ImageInput) else 20_000
        if len(self.labels) * each <= _HELDOUT_BYTES:
            return np.ones(len(self.labels), bool)
        parts = int(np.ceil(len(self.labels) * each / _HELDOUT_BYTES)) + 1
        return ~plan.share_of_groups(self.labels, [i.group for i in self.data.items], parts, self.options.seed)

    def _train(self, name: str, items: NDArray[np.bool_], steps: int, stage: str) -> onnx.ModelProto:
        from export.training.loop import train

        with self.stages.stage(stage) as step:
            chosen = np.flatnonzero(items[self.owner])
            place = self.folder / name
            return train(
                self.task, chosen, steps=steps, seed=self.options.seed, shape=self._shape(), place=place, step=step
            )

    def _shape(self) -> tuple[int, int, int]:
        from edge.preprocess import audio_shape

        if isinstance(self.plan.input, ImageInput):
            return 3, self.plan.input.height, self.plan.input.width
        _, frames, bands, channels = audio_shape(self.plan.input)
        return channels, frames, bands

    def _values(self, places: NDArray[np.intp]) -> NDArray[Any]:
        from export.training import pictures, sounds

        items = [self.data.items[i] for i in places]
        if isinstance(self.plan.input, ImageInput):
            return pictures.values_of(items, self.plan.input)
        return sounds.values_of(items, self.plan.input)

    def _build(self, network: onnx.ModelProto, scored: _Scored) -> tuple[Path, NDArray[np.bool_]]:
        """Write the bundle; return its path and which judged items proved the thresholds."""
        groups = [self.data.items[i].group for i in scored.places]
        labels = self.labels[scored.places]
        piloted = plan.share_of_groups(labels, groups, _PILOT_PARTS, self.options.seed)
        judged = Labelled(self._values(scored.places), labels, choosing.numbers(groups), scored.logits)
        train = np.flatnonzero(self._trainable())
        data = BuildData(
            quantize=self._ranges(self._trainable()),
            heldout=judged.take(np.flatnonzero(~piloted)),
            pilot=judged.take(np.flatnonzero(piloted)),
            reference=self._references(train),
            golden=self._golden(judged),
        )
        recipe = self._recipe()
        path = self.options.out / f"{self.options.name}-{self.options.version}.lsb"
        build_bundle(recipe, network, data, path)
        return path, ~piloted

    def _references(self, train: NDArray[np.intp]) -> Any:
        chosen = choosing.some(train, _REFERENCES, self.options.seed)
        return RawInputs([self.data.items[i] for i in chosen], self.plan.input)

    def _golden(self, judged: Labelled) -> NDArray[Any]:
        """Return a few examples, coarse, so that they pack into few bytes."""
        values = golden.choose(judged, _GOLDEN if isinstance(self.plan.input, ImageInput) else 2 * _GOLDEN)
        if values.dtype != np.uint8:
            return np.asarray(np.rint(values * 64) / 64, np.float32)
        coarse = values[:, ::_GOLDEN_STEP, ::_GOLDEN_STEP] // _GOLDEN_LEVELS * _GOLDEN_LEVELS + _GOLDEN_LEVELS // 2
        return np.repeat(np.repeat(coarse, _GOLDEN_STEP, 1), _GOLDEN_STEP, 2).astype(np.uint8)

    def _recipe(self) -> Recipe:
        options, data = self.options, self.data
        assert self.choice is not None
        notes = [*([_CROSS_NOTE] if self.plan.folds else []), *([] if data.grouped else [_UNGROUPED_NOTE])]
        area = self.plan.input.width * self.plan.input.height if isinstance(self.plan.input, ImageInput) else 0
        return Recipe(
            name=options.name,
            version=options.version,
            task=options.task,
            input=self.plan.input,
            labels=data.labels,
            created_at=data.newest(),
            description=f"Made from {len(data.items)} {'pictures' if data.media == 'image' else 'sounds'} by fit.",
            alpha_escape=options.alpha,
            alpha_false_reject=options.alpha,
            alpha_error=options.alpha,
            delta=options.delta,
            unit=data.unit,
            guarantee_note="; ".join(notes),
            calibration="auto",
            prefer=self.choice.prefer,
            precision=self.choice.precision,
            memory_bytes=(48 + area // 10_000) * 2**20,
            lineage={
                "code": self.code,
                "recipe": "lineside-export fit",
                "dataset_digest": self.digest,
                "settings": options.settings(),
                "ships": {"prefer": self.choice.prefer, "precision": self.choice.precision},
                "plan": {"copies": self.plan.copies, "steps": self.plan.steps, "batch": self.plan.batch},
                "sides_tried": {str(side): figure for side, figure in self.side_figures.items()},
                "network": "EfficientNet-Lite0, four stages" if data.media == "image" else "DS-CNN",
            },
            metrics={"data": {k: v for k, v in self.checked.facts.items() if k != "sizes"}, "learns_ten": self.learns},
        )

    def _finish(
        self, built: tuple[Path, NDArray[np.bool_]], network: onnx.ModelProto, scored: _Scored, run: str
    ) -> Fitted:
        """Measure, audit, pack for good, sign, report."""
        from export import page

        path, proving = built
        bundle = load(path)
        judged = self._judged(bundle, scored)
        simple = self._compared(judged, scored)
        if simple["beats_simple"]:
            self.checked = checks.doubted_by_network(self.checked, scored.places, judged.chances)
        assert self.choice is not None
        prefer, narrow = bundle.manifest.prefer, self.choice.precision == "int8"
        speeds = speed.measure(bundle, network if narrow else None)
        before = self._before(scored)
        by = _CROSS_NOTE if self.plan.folds else "the test split"
        verdict = limits.audit(judged, self.rules, before, by, of_manifest(bundle.manifest))
        whole = evidence.figures(judged)
        proved, share = choosing.only(judged, proving), float(proving.mean())
        advice = evidence.advice(proved, self.options.alpha, self.options.delta, self.data.unit, share)
        data = {**bundle.manifest.metrics["data"], **{k: self.checked.facts[k] for k in ("doubted", "doubted_labels")}}
        metrics = {
            **bundle.manifest.metrics,
            "data": data,
            "judged": whole,
            "curves": evidence.curves(judged),
            "simple": simple,
        }
        manifest = bundle.manifest.model_copy(update={"metrics": {**metrics, "advice": advice}, "audit": verdict})
        ref = pack.write(manifest, bundle.files, path)
        signature = signing.sign(path, self._key())
        extras = {
            "speeds": {name: item.plain() for name, item in speeds.items()},
            "macs": speed.multiplications(network),
            "prefer": f"{speed.compared(speeds, prefer)}; {self.choice.why}; the same on any machine: "
            f"{self.choice.again()}",
            "format": self.choice.plain(),
            "estimate": speed.estimate(speeds[prefer].p50_ms, self.options.profile),
            "warnings": self.checked.warnings,
            "run": run,
            "input": self.checked.facts["sizes"],
        }
        scores.write(path.with_suffix(".scores.npz"), scores.of(proved, f"{ref.name} {ref.version}"))
        report = path.with_suffix(".html")
        pictures = worst.worst(bundle, judged, [self.data.items[i] for i in scored.places])
        report.write_text(page.render(load(path), {**extras, "pictures": pictures}))
        facts = {
            "judged": whole["whole"],
            "auroc": whole["auroc"],
            "simple": simple,
            "audit": verdict["passed"],
            **extras,
        }
        words = in_words(load(path), self.data, facts)
        return Fitted(ref, path, report, signature, run, words, facts)

    def _judged(self, bundle: Bundle, scored: _Scored) -> Judged:
        logits = scored.logits
        if logits is None:
            spec, content = bundle.model("onnx")
            logits = golden.outputs(content, spec, self._values(scored.places))[:, : len(self.data.labels)]
        items = [self.data.items[i] for i in scored.places]
        return Judged(
            labels=bundle.manifest.labels,
            truth=self.labels[scored.places],
            chances=np.asarray(probabilities(logits, bundle.manifest.calibration), np.float64),
            groups=choosing.numbers([item.group for item in items]),
            policy=bundle.manifest.policy,
            slices=[item.slices for item in items],
        )

    def _before(self, scored: _Scored) -> Judged | None:
        from export.measuring import judge_items

        if self.options.against is None:
            return None
        items = [self.data.items[i] for i in scored.places]
        return judge_items(load(self.options.against), items)

    def _compared(self, judged: Judged, scored: _Scored) -> dict[str, Any]:
        """Hold the network against the commonest class and a linear model, on the same examples."""
        commonest = int(np.bincount(judged.truth).argmax())
        figures = {
            "commonest_class": {"accuracy": round(float(np.mean(judged.truth == commonest)), 4), "auroc": 0.5},
            "network": _scores(judged),
        }
        if self.checked.linear is not None:
            figures["linear_model"] = _scores(replace(judged, chances=self.checked.linear[scored.places]))
        name = "auroc" if judged.inspects else "accuracy"
        others = [value[name] or 0.0 for key, value in figures.items() if key != "network"]
        return {**figures, "compared_by": name, "beats_simple": (figures["network"][name] or 0.0) > max(others)}

    def _key(self) -> Path:
        if self.options.key is not None:
            return self.options.key
        own = self.options.out / "keys"
        return own / signing.KEY_NAME if (own / signing.KEY_NAME).exists() else signing.make(own)


def _scores(judged: Judged) -> dict[str, Any]:
    accuracy = float(np.mean(judged.chances.argmax(1) == judged.truth))
    return {"accuracy": round(accuracy, 4), "auroc": evidence.auroc(judged)}
