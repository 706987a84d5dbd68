"""The manifest of a bundle: all that a device must know to run a model and to know when it does not know.

A bundle is a ZIP archive named `{name}-{version}.lsb`. Its members are `manifest.json` and the files that the
manifest lists, nothing else. The bundle's identity is the SHA-256 of the archive's bytes.

Rules:
- Thresholds, calibration and label order come from here, never from a driver.
- Every file of the archive stands in `files` with its digest and size; names are flat and plain.
- For inspection the label of a good part is `good`; the defect score is 1 − p(good).
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from edge.wire.base import Digest, Name, Version, WireModel
from edge.wire.rows import Histogram
from edge.wire.terms import Task

MANIFEST_NAME = "manifest.json"
FORMAT: Literal[1] = 1
GOOD_LABEL = "good"
PICTURE_METRICS = frozenset({"brightness", "contrast", "saturation", "sharpness"})
SOUND_METRICS = frozenset({"level_dbfs", "peak_dbfs", "clipping", "duration_s"})
"""What a device's gate measures of every input of a kind: limits may name nothing else."""

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


RuntimeName = Literal["onnx", "tflite", "whisper", "pocketsphinx"]
"""What runs a model file; the last two recognise speech, and their file is a note that names weights in a package."""
RECOGNISERS: tuple[RuntimeName, ...] = ("whisper", "pocketsphinx")
RECOGNISED_LABELS = ["unclear", "understood"]
"""Labels of every recogniser's bundle, in the order of its logits."""


class FileEntry(WireModel):
    """One file of the archive."""

    digest: Digest
    size_bytes: int = Field(ge=0)


class TensorSpec(WireModel):
    """A tensor as the model's file declares it."""

    name: str
    shape: list[int]
    dtype: Literal["uint8", "int8", "float32"]
    scale: float | None = None
    """real = (quantized − zero_point) × scale; None for float32 and for raw picture bytes."""
    zero_point: int | None = None
    tolerance: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Features and heat map: largest difference of any number from the golden one that still counts as the same."""
    layout: Literal["channels_last", "channels_first"] = "channels_last"
    """Inputs: where the file wants the channels; preprocessed values have them last."""
    mean: list[float] | None = None
    std: list[float] | None = None
    """Inputs that do not take picture bytes as they are: (byte − mean) / std, one number or one per channel."""
    values: Literal["logits", "probabilities", "sigmoids"] = "logits"
    """Outputs: what the file gives. Of the others, runtimes hand out logits: log p of probabilities that add up to
    one, log(p / (1 − p)) of sigmoids; one sigmoid for two labels is the probability of the second."""

    @property
    def answer_shape(self) -> list[int]:
        """Shape of what a session hands out of this output: the file's, or two logits of a single sigmoid."""
        single = self.values == "sigmoids" and math.prod(self.shape) == 1
        return [1, 2] if single else self.shape


class ModelFile(WireModel):
    """One format of the network. Every format takes the same preprocessed values.

    A network answers with logits, and may give its features, a heat map or a text with them, as outputs of the same
    file in this order. A session hands all of it out as one vector, each as real numbers.
    """

    file: FileName
    runtime: RuntimeName
    precision: Literal["int8", "float32"]
    input: TensorSpec
    output: TensorSpec
    """Logits, shape (1, number of labels); runtimes hand them out as float32."""
    features: TensorSpec | None = None
    """The embedding that out-of-distribution is judged by, shape (1, d); None if the network does not give it."""
    heatmap: TensorSpec | None = None
    """Evidence of a defect per place of the input, shape (1, rows, columns), more is more suspicious; None if the
    network does not give it."""
    text: TensorSpec | None = None
    """What was said, as UTF-8, one number a byte and zeros behind, shape (1, bytes); None if it gives none."""
    golden_tolerance: float = Field(gt=0, allow_inf_nan=False)
    """Largest difference of any logit from the golden output that still counts as the same model; of any chance where
    the output's `values` are no logits."""

    @model_validator(mode="after")
    def _extras_have_their_shapes(self) -> "ModelFile":
        for name, extra, rank in (("features", self.features, 2), ("heatmap", self.heatmap, 3), ("text", self.text, 2)):
            if extra is not None and (len(extra.shape) != rank or extra.shape[0] != 1):
                raise ValueError(f"{name}: expected {rank} axes with batch 1, got shape {extra.shape}")
        if self.text is not None and self.heatmap is not None:
            raise ValueError("text and heatmap: a network gives one of them, or neither")
        return self


class ImageInput(WireModel):
    """Pictures: decoded to 8-bit, resized, handed to the model as raw bytes, shape (1, height, width, channels)."""

    kind: Literal["image"] = "image"
    width: int = Field(ge=8, le=4096)
    height: int = Field(ge=8, le=4096)
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    resize: Literal["stretch", "letterbox"] = "stretch"
    min_side: int = 16
    """A picture with a shorter side is bad input."""


class AudioInput(WireModel):
    """Sound: mono, resampled, cut or padded to `window_s`, turned into features.

    The model gets, by `features`, with frames = 1 + (window − frame) // hop:
    `log_mel` (1, frames, mel_bands, 1): (log(mel + log_floor) + shift) / scale;
    `mfcc` (1, frames, coefficients, 1): the first of the unnormalised DCT-II of log(mel + log_floor), divided by
    sqrt(2 × mel_bands);
    `waveform` (1, samples, 1, 1): the samples themselves.
    """

    kind: Literal["audio"] = "audio"
    sample_rate_hz: int
    window_s: float
    frame_ms: float = 32.0
    hop_ms: float = 16.0
    mel_bands: int = 32
    low_hz: float = 60.0
    high_hz: float = 3800.0
    min_s: float = 0.1
    """Shorter sound is bad input."""
    features: Literal["log_mel", "mfcc", "waveform"] = "log_mel"
    coefficients: int = Field(default=10, ge=1)
    place: Literal["loudest", "start"] = "loudest"
    """Which window of a longer sound, and where a shorter one stands: around its loudest part and centred, or from
    its start."""
    level: Literal["as_is", "peak"] = "as_is"
    """Whether the window is divided by its highest sample first."""
    fft_size: int | None = Field(default=None, ge=2, le=2**16)
    """Frames are padded with zeros to this length before the transform; None for the frame itself."""
    spectrum: Literal["power", "magnitude"] = "power"
    filters: Literal["hertz", "mel"] = "hertz"
    """The scale on which the triangles of the mel filters have straight sides."""
    log_floor: float = Field(default=1e-6, gt=0)
    shift: float = 6.0
    scale: float = Field(default=4.0, gt=0)

    @model_validator(mode="after")
    def _computable(self) -> "AudioInput":
        frame = round(self.frame_ms * self.sample_rate_hz / 1000)
        if self.fft_size is not None and self.fft_size < frame:
            raise ValueError(f"fft_size {self.fft_size} must not be below the frame of {frame} samples")
        if self.features == "mfcc" and self.coefficients > self.mel_bands:
            raise ValueError(f"coefficients {self.coefficients} must not be above mel_bands {self.mel_bands}")
        return self


InputSpec = Annotated[ImageInput | AudioInput, Field(discriminator="kind")]


class Calibration(WireModel):
    """From logits to calibrated probabilities: softmax((logits × scale + bias) / temperature).

    `isotonic` then moves the probability of one label along a rising line of straight pieces, and shares out the rest
    among the others as it was. `sigmoid` is for labels that may hold together: 1 / (1 + exp(−(logit × scale + bias) /
    temperature)) for each, adding up to nothing in particular.
    """

    method: Literal["none", "temperature", "vector", "isotonic", "sigmoid"] = "none"
    temperature: float = Field(default=1.0, gt=0)
    scale: list[float] | None = None
    bias: list[float] | None = None
    label: int | None = Field(default=None, ge=0)
    """Isotonic: the index of the label whose probability is moved; for inspection that of `good`."""
    knots: list[tuple[float, float]] | None = None
    """Isotonic: (probability before, after), from 0 to 1, both rising."""

    @model_validator(mode="after")
    def _isotonic_rises(self) -> "Calibration":
        if self.method != "isotonic":
            return self
        if self.label is None or self.knots is None or len(self.knots) < 2:
            raise ValueError("isotonic calibration needs a label and at least two knots")
        before, after = zip(*self.knots, strict=True)
        if (before[0], before[-1]) != (0.0, 1.0) or not 0.0 <= after[0] <= after[-1] <= 1.0:
            raise ValueError("isotonic calibration: knots must go from 0 to 1, and stay within")
        steps = zip(self.knots, self.knots[1:], strict=False)
        if any(x1 <= x0 or y1 < y0 for (x0, y0), (x1, y1) in steps):
            raise ValueError("isotonic calibration: knots must rise")
        return self


class Guarantee(WireModel):
    """What the thresholds promise: with confidence 1 − delta, at most alpha wrong among automated decisions."""

    method: str
    alpha_escape: float | None = None
    """Bound on defective among parts that pass by themselves."""
    alpha_false_reject: float | None = None
    """Bound on good among parts that are thrown out by themselves."""
    alpha_error: float | None = None
    """Bound on wrong among accepted (keywords)."""
    delta: float
    n: int
    """Size of the sample that the thresholds were chosen on."""
    unit: str = "picture"
    """What is independent in that sample: picture, part, speaker."""
    coverage: float
    """Share of that sample that was decided without a person."""
    note: str = ""


OnDisagreement = Literal["keep", "defer"]
"""What becomes of a sure decision that a candidate in the shadow would have made otherwise."""


class InspectPolicy(WireModel):
    """Two thresholds on the defect score d = 1 − p(good): d ≤ pass_max passes, d ≥ divert_min is diverted."""

    kind: Literal["inspect"] = "inspect"
    pass_max: float
    divert_min: float
    label_pass_max: dict[str, float] = Field(default_factory=dict)
    """Labels that cost more: a part passes by itself only if the probability of each is no higher than this, too."""
    on_disagreement: OnDisagreement = "keep"
    guarantee: Guarantee | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "InspectPolicy":
        if self.pass_max > self.divert_min:
            raise ValueError(f"pass_max {self.pass_max} must not be above divert_min {self.divert_min}")
        return self


class KeywordPolicy(WireModel):
    """One threshold on the probability of the likeliest label: p ≥ accept_min is accepted."""

    kind: Literal["keyword"] = "keyword"
    accept_min: float
    label_accept_min: dict[str, float] = Field(default_factory=dict)
    """Labels that cost more if they are wrong: their own threshold in place of `accept_min`."""
    on_disagreement: OnDisagreement = "keep"
    guarantee: Guarantee | None = None


class LabelThresholds(WireModel):
    """Two thresholds on the probability p of one kind of defect: p ≤ pass_max is free of it, p ≥ divert_min has it."""

    pass_max: float
    divert_min: float
    guarantee: Guarantee | None = None
    """Its own promise: a kind that costs more may have a stricter one."""

    @model_validator(mode="after")
    def _ordered(self) -> "LabelThresholds":
        if self.pass_max > self.divert_min:
            raise ValueError(f"pass_max {self.pass_max} must not be above divert_min {self.divert_min}")
        return self


class MultilabelPolicy(WireModel):
    """Kinds of defect that may hold together, each with thresholds of its own on its own probability.

    A part passes if it is free of every kind and is diverted if it has any; else it is unsure. The bundle's labels are
    the kinds; a good part is one that has none, so `good` is not among them.
    """

    kind: Literal["multilabel"] = "multilabel"
    labels: dict[str, LabelThresholds] = Field(min_length=1)
    on_disagreement: OnDisagreement = "keep"
    guarantee: Guarantee | None = None
    """What all thresholds promise together."""


AnyPolicy = InspectPolicy | KeywordPolicy | MultilabelPolicy
Policy = Annotated[AnyPolicy, Field(discriminator="kind")]


class Limits(WireModel):
    """A metric of the input outside of these is bad input, with the metric's name as the detail."""

    min: float | None = None
    max: float | None = None


class OutOfDistribution(WireModel):
    """When an input is unlike all that the network was made for, so that its answer means nothing.

    A score of the network's features above `limit` ends in a deferral; see `edge.ood` for the scores.
    """

    method: Literal["mahalanobis", "nearest"]
    file: FileName
    """`.npy`, float32 or float16 (rows, d + 1): the matrix that features are multiplied with; its last column is the
    offset."""
    limit: float
    false_alarm_rate: float = Field(gt=0, lt=1)
    """Share of known inputs that the limit lets score above it, on the sample that set it."""
    n: int = Field(ge=1)
    """Units in that sample: good and defective ones, none of which the reference was made from."""
    unit: str = "picture"
    note: str = ""
    """What a reader must know beyond the numbers, for example that there were too few units."""


class Golden(WireModel):
    """Recorded inputs with the outputs they must give: `.npy` files, first axis the examples.

    Inputs are preprocessed values before `edge.preprocess.to_model` (uint8 picture bytes or float32 features, without
    the batch axis), the same for every format; outputs are float32 logits.
    """

    inputs: FileName
    outputs: dict[str, FileName]
    """File of the expected logits per runtime."""
    extras: dict[str, FileName] = Field(default_factory=dict)
    """File of the expected features and heat map per runtime, (n, d + rows × columns), for networks that give them."""
    count: int = Field(ge=1, le=64)


class Requires(WireModel):
    """What the device must have."""

    memory_bytes: int = 0
    profiles: list[str] = Field(default_factory=list)
    """Names of device profiles it was made for; empty for any."""


class Manifest(WireModel):
    """`manifest.json` of a bundle."""

    format: Literal[1] = FORMAT
    kind: Literal["model"] = "model"
    name: Name
    version: Version
    task: Task
    description: str = ""
    created_at: str
    """ISO 8601, UTC."""
    input: InputSpec
    labels: list[str] = Field(min_length=2, max_length=4096)
    models: dict[RuntimeName, ModelFile] = Field(min_length=1)
    prefer: RuntimeName = "onnx"
    calibration: Calibration = Calibration()
    policy: Policy
    gate: dict[str, Limits] = Field(default_factory=dict)
    reference: dict[str, Histogram] = Field(default_factory=dict)
    """Distribution of each input metric (and `confidence`) on reference data, for drift."""
    out_of_distribution: OutOfDistribution | None = None
    """None if the network gives no features: then strange inputs are judged like any other."""
    golden: Golden
    requires: Requires = Requires()
    lineage: dict[str, Any] = Field(default_factory=dict)
    """Code commit, dataset digest, hyperparameters, seed."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    audit: dict[str, Any] = Field(default_factory=dict)
    files: dict[FileName, FileEntry]

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        if (self.task == "keyword") != (self.policy.kind == "keyword"):
            raise ValueError(f"policy {self.policy.kind!r} does not fit task {self.task!r}")
        _policy_fits(self.policy, self.labels, self.calibration)
        _recogniser_fits(self)
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must differ, got {self.labels}")
        if self.prefer not in self.models:
            raise ValueError(f"prefer is {self.prefer!r}, but models has only {sorted(self.models)}")
        measured = PICTURE_METRICS if self.input.kind == "image" else SOUND_METRICS
        unknown = sorted(set(self.gate) - measured)
        if unknown:
            known = ", ".join(sorted(measured))
            raise ValueError(f"gate limits {', '.join(unknown)}, which no device measures; it measures {known}")
        named = {m.file for m in self.models.values()} | {self.golden.inputs} | set(self.golden.outputs.values())
        named |= set(self.golden.extras.values())
        if self.out_of_distribution is not None:
            named.add(self.out_of_distribution.file)
            without = sorted(name for name, model in self.models.items() if model.features is None)
            if without:
                raise ValueError(f"out_of_distribution needs features, which {', '.join(without)} does not give")
        missing = sorted(named - set(self.files))
        if missing:
            raise ValueError(f"files are named but not listed: {', '.join(missing)}")
        return self


def _policy_fits(policy: AnyPolicy, labels: list[str], calibration: Calibration) -> None:
    several = isinstance(policy, MultilabelPolicy)
    if several != (calibration.method == "sigmoid"):
        raise ValueError(f"policy {policy.kind!r} does not fit calibration {calibration.method!r}")
    if isinstance(policy, MultilabelPolicy):
        if set(policy.labels) != set(labels) or GOOD_LABEL in labels:
            raise ValueError(f"multilabel: expected thresholds for each label and no {GOOD_LABEL!r}, got {labels}")
        return
    if isinstance(policy, InspectPolicy) and GOOD_LABEL not in labels:
        raise ValueError(f"labels of an inspection bundle must hold {GOOD_LABEL!r}, got {labels}")
    own = policy.label_pass_max if isinstance(policy, InspectPolicy) else policy.label_accept_min
    unknown = sorted(set(own) - set(labels))
    if unknown:
        raise ValueError(f"thresholds for {', '.join(unknown)}, which the bundle has no label for")


def _recogniser_fits(manifest: Manifest) -> None:
    """Refuse labels in another order, which would call unclear speech understood, and a sound that is no sound."""
    if not any(model.runtime in RECOGNISERS for model in manifest.models.values()):
        return
    if manifest.labels != RECOGNISED_LABELS:
        raise ValueError(f"a recogniser's labels: expected {RECOGNISED_LABELS}, got {manifest.labels}")
    spec = manifest.input
    if not isinstance(spec, AudioInput) or (spec.features, spec.place) != ("waveform", "start"):
        raise ValueError("a recogniser's input: expected audio, features = waveform, place = start")
