"""The manifest of a bundle: all that a device must know to run a model and to know when it does not know.

A bundle is a ZIP archive named `{name}-{version}.lsb`. Its members are `manifest.json` and the files that the
manifest lists, nothing else. The bundle's identity is the SHA-256 of the archive's bytes.

Rules:
- Thresholds, calibration and label order come from here, never from a driver.
- Every file of the archive stands in `files` with its digest and size; names are flat and plain.
- For inspection the label of a good part is `good`; the defect score is 1 − p(good).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from edge.wire.base import Digest, Name, Version, WireModel
from edge.wire.rows import Histogram
from edge.wire.terms import Task

MANIFEST_NAME = "manifest.json"
FORMAT: Literal[1] = 1
GOOD_LABEL = "good"

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


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


class ModelFile(WireModel):
    """One format of the network. Every format takes the same preprocessed values."""

    file: FileName
    runtime: Literal["onnx", "tflite"]
    precision: Literal["int8", "float32"]
    input: TensorSpec
    output: TensorSpec
    """Logits, shape (1, number of labels); runtimes hand them out as float32."""
    golden_tolerance: float = Field(gt=0)
    """Largest difference of any logit from the golden output that still counts as the same model."""


class ImageInput(WireModel):
    """Pictures: decoded to 8-bit, resized, handed to the model as raw bytes, shape (1, height, width, channels)."""

    kind: Literal["image"] = "image"
    width: int = Field(ge=8, le=4096)
    height: int = Field(ge=8, le=4096)
    color: Literal["rgb", "gray"] = "rgb"
    resize: Literal["stretch", "letterbox"] = "stretch"
    min_side: int = 16
    """A picture with a shorter side is bad input."""


class AudioInput(WireModel):
    """Sound: mono, resampled, cut or padded to `window_s` around its loudest part, turned into log-mel features.

    The model gets shape (1, frames, mel_bands, 1), frames = 1 + (window − frame) // hop.
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


InputSpec = Annotated[ImageInput | AudioInput, Field(discriminator="kind")]


class Calibration(WireModel):
    """From logits to calibrated probabilities: softmax((logits × scale + bias) / temperature)."""

    method: Literal["none", "temperature", "vector"] = "none"
    temperature: float = Field(default=1.0, gt=0)
    scale: list[float] | None = None
    bias: list[float] | None = None


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


class InspectPolicy(WireModel):
    """Two thresholds on the defect score d = 1 − p(good): d ≤ pass_max passes, d ≥ divert_min is diverted."""

    kind: Literal["inspect"] = "inspect"
    pass_max: float
    divert_min: float
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
    guarantee: Guarantee | None = None


Policy = Annotated[InspectPolicy | KeywordPolicy, Field(discriminator="kind")]


class Limits(WireModel):
    """A metric of the input outside of these is bad input, with the metric's name as the detail."""

    min: float | None = None
    max: float | None = None


class Golden(WireModel):
    """Recorded inputs with the outputs they must give: `.npy` files, first axis the examples.

    Inputs are preprocessed values before `edge.preprocess.to_model` (uint8 picture bytes or float32 features, without
    the batch axis), the same for every format; outputs are float32 logits.
    """

    inputs: FileName
    outputs: dict[str, FileName]
    """File of the expected logits per runtime."""
    count: int = Field(ge=1, le=64)


class Requires(WireModel):
    """What the device must have."""

    memory_bytes: int = 0
    profiles: list[str] = Field(default_factory=list)
    """Names of device profiles it was made for; empty for any."""


class Manifest(WireModel):
    """`manifest.json` of a bundle."""

    format: Literal[1] = FORMAT
    name: Name
    version: Version
    task: Task
    description: str = ""
    created_at: str
    """ISO 8601, UTC."""
    input: InputSpec
    labels: list[str] = Field(min_length=2, max_length=1000)
    models: dict[Literal["onnx", "tflite"], ModelFile] = Field(min_length=1)
    prefer: Literal["onnx", "tflite"] = "onnx"
    calibration: Calibration = Calibration()
    policy: Policy
    gate: dict[str, Limits] = Field(default_factory=dict)
    reference: dict[str, Histogram] = Field(default_factory=dict)
    """Distribution of each input metric (and `confidence`) on reference data, for drift."""
    golden: Golden
    requires: Requires = Requires()
    lineage: dict[str, Any] = Field(default_factory=dict)
    """Code commit, dataset digest, hyperparameters, seed."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    audit: dict[str, Any] = Field(default_factory=dict)
    files: dict[FileName, FileEntry]

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        if (self.task == "inspect") != (self.policy.kind == "inspect"):
            raise ValueError(f"policy {self.policy.kind!r} does not fit task {self.task!r}")
        if self.task == "inspect" and GOOD_LABEL not in self.labels:
            raise ValueError(f"labels of an inspection bundle must hold {GOOD_LABEL!r}, got {self.labels}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must differ, got {self.labels}")
        if self.prefer not in self.models:
            raise ValueError(f"prefer is {self.prefer!r}, but models has only {sorted(self.models)}")
        named = {m.file for m in self.models.values()} | {self.golden.inputs} | set(self.golden.outputs.values())
        missing = sorted(named - set(self.files))
        if missing:
            raise ValueError(f"files are named but not listed: {', '.join(missing)}")
        return self
