"""One sample of every model of the contract; a model without one breaks the suite."""

from importlib import import_module
from pkgutil import iter_modules

import edge.wire
from edge.wire import delta, http, manifest, messages, osimage, rows
from edge.wire.base import BundleRef, WireModel

DIGEST = "ab" * 32
AT_MS = 1_763_900_000_123
REF = BundleRef(name="phone_glass", version="1.2.0", digest=DIGEST, size_bytes=345_678)
OS_REF = BundleRef(name="os-x86-box", version="1.1.0", digest=DIGEST, size_bytes=250_000_000, kind="os")
OS_REPORT = messages.OsReport(model="os-x86-box", serving=OS_REF, slot="b", waits_for="its hours, 02:00-04:00")
INPUT = rows.InputRef(
    source="folder",
    name="in/0001.jpg",
    digest="cd" * 32,
    media_type="image/jpeg",
    size_bytes=51_234,
    kept=False,
    features="ef" * 32,
)
HISTOGRAM = rows.Histogram(edges=[0.25, 0.5, 0.75], counts=[1, 0, 3, 12])
PEAK = rows.Peak(x=0.25, y=0.5, value=3.5)
DECISION = rows.DecisionRow(
    seq=17,
    station="glass",
    at_ms=AT_MS,
    boot_id="b1",
    monotonic_ms=52_017,
    mode="partial",
    verdict="defer",
    action="hand_over",
    reason="unsure",
    detail="0.42 lies between 0.05 and 0.9",
    audit_probability=0.02,
    label="scratch",
    confidence=0.58,
    scores={"good": 0.42, "scratch": 0.58},
    bundle=REF,
    runtime="onnx",
    policy={"pass_max": 0.05, "divert_min": 0.9},
    input=INPUT,
    metrics={"brightness": 0.51},
    where=[PEAK],
    text="he was not an ill disposed young man",
    forgotten=True,
    latency_ms={"infer": 1.7, "total": 2.4},
)
OUTCOME = rows.OutcomeRow(
    seq=18, decision_seq=17, at_ms=AT_MS + 2, state="done", actuator="log", detail="moved", latency_ms=0.4
)
EVENT = rows.EventRow(
    seq=19,
    at_ms=AT_MS,
    boot_id="b1",
    name="drift_raised",
    severity="warning",
    station="glass",
    model="phone_glass",
    detail="brightness is lower than in the reference",
    data={"metric": "brightness", "statistic": 0.31},
)
TELEMETRY = rows.TelemetryRow(
    seq=20,
    station="glass",
    model="phone_glass",
    bundle=REF,
    started_at_ms=AT_MS - 10_000,
    ended_at_ms=AT_MS,
    counts={"decisions": 16, "verdict.pass": 12},
    histograms={"confidence": HISTOGRAM},
)
SLOT = messages.SlotReport(bundle=REF, state="bad", since_ms=AT_MS, reason="crashed 3 times")
STATION = messages.StationReport(
    model="phone_glass",
    mode="partial",
    serving=REF,
    runtime="onnx",
    decisions=160,
    last_decision_at_ms=AT_MS,
    problem="x",
)
REFUSAL = messages.Refusal(bundle=REF, at_ms=AT_MS, reason="signed by another key")
HEALTH = messages.Health(
    uptime_s=12.5,
    memory_bytes=90_000_000,
    disk_free_bytes=10**10,
    outbox_rows=3,
    outbox_bytes=2100,
    oldest_unsent_ms=AT_MS,
    uploads_waiting=1,
    cpu_percent=12.5,
    temperature_c=41.0,
    extra={"fan": "on"},
)
BUNDLES = messages.DesiredBundles(active=REF, candidate=REF)
DESIRED_STATION = messages.DesiredStation(mode="assist", policy={"pass_max": 0.04})
BROKER = http.BrokerAddress(host="10.0.0.5", port=1883, username="box-1", password="s3cret", tls=True)
TENSOR = manifest.TensorSpec(name="x", shape=[1, 64, 64, 3], dtype="uint8", scale=0.5, zero_point=3)
MODEL = manifest.ModelFile(
    file="m.onnx",
    runtime="onnx",
    precision="int8",
    input=TENSOR,
    output=TENSOR,
    text=manifest.TensorSpec(name="text", shape=[1, 1024], dtype="float32", tolerance=0.5),
    golden_tolerance=0.05,
)
GUARANTEE = manifest.Guarantee(
    method="clopper-pearson",
    alpha_escape=0.02,
    alpha_false_reject=0.05,
    alpha_error=0.02,
    delta=0.05,
    n=400,
    unit="part",
    coverage=0.8,
    note="n",
)
INSPECT = manifest.InspectPolicy(pass_max=0.05, divert_min=0.9, guarantee=GUARANTEE)
IMAGE = manifest.ImageInput(width=64, height=64, color="gray", resize="letterbox", min_side=8)
OOD = manifest.OutOfDistribution(
    method="mahalanobis", file="known.npy", limit=9.5, false_alarm_rate=0.01, n=400, unit="part", note="n"
)
GOLDEN = manifest.Golden(inputs="in.npy", outputs={"onnx": "out.npy"}, count=4)
FILE = manifest.FileEntry(digest=DIGEST, size_bytes=10)
PIECE = delta.PieceSpec(how="same", size_bytes=10, of=1)

SAMPLES: list[WireModel] = [
    PIECE,
    delta.DeltaHeader(old=DIGEST, new=DIGEST[::-1], size_bytes=100, pieces=[PIECE], source=[0]),
    REF,
    INPUT,
    HISTOGRAM,
    PEAK,
    DECISION,
    OUTCOME,
    EVENT,
    TELEMETRY,
    SLOT,
    STATION,
    REFUSAL,
    HEALTH,
    BUNDLES,
    DESIRED_STATION,
    messages.Desired(
        device="box-1",
        config_version=7,
        issued_at_ms=AT_MS,
        bundles={"phone_glass": BUNDLES},
        stations={"glass": DESIRED_STATION},
        rollout="phone_glass-1-2-0",
    ),
    messages.Reported(
        device="box-1",
        incarnation="i1",
        boot_id="b1",
        sent_at_ms=AT_MS,
        config_version=7,
        software="0.1.0",
        profile="inspection-box",
        site="hall-2",
        slots={"phone_glass": [SLOT]},
        stations={"glass": STATION},
        refusals=[REFUSAL],
        os=OS_REPORT,
        health=HEALTH,
        interval_s=5.0,
    ),
    messages.Presence(device="box-1", boot_id="b1", online=True, at_ms=AT_MS),
    messages.Up(device="box-1", incarnation="i1", rows=[DECISION, OUTCOME, EVENT, TELEMETRY]),
    messages.Ack(device="box-1", incarnation="i1", stored_through=20, wanted_inputs=[DIGEST]),
    http.EnrolRequest(
        device="box-1",
        claim="c" * 43,
        profile="inspection-box",
        site="hall-2",
        public_key="12" * 32,
        proof="34" * 64,
        models=["phone_glass"],
    ),
    BROKER,
    http.EnrolAnswer(device="box-1", broker=BROKER, token="t" * 43, server_time_ms=AT_MS),
    http.Trust(ca="PEM", broker_ca="PEM", certificate="c" * 64, renew=True),
    http.RenewRequest(csr="PEM", proof="e" * 128),
    http.Renewal(certificate="PEM"),
    FILE,
    TENSOR,
    MODEL,
    IMAGE,
    manifest.AudioInput(sample_rate_hz=8000, window_s=1.0),
    manifest.Calibration(method="vector", temperature=1.5, scale=[1.0, 2.0], bias=[0.0, 0.5]),
    GUARANTEE,
    INSPECT,
    manifest.KeywordPolicy(accept_min=0.9, guarantee=GUARANTEE),
    manifest.LabelThresholds(pass_max=0.02, divert_min=0.9, guarantee=GUARANTEE),
    manifest.MultilabelPolicy(
        labels={"scratch": manifest.LabelThresholds(pass_max=0.02, divert_min=0.9)}, guarantee=GUARANTEE
    ),
    manifest.Limits(min=0.1, max=0.9),
    GOLDEN,
    OOD,
    manifest.Requires(memory_bytes=10**8, profiles=["inspection-box"]),
    manifest.Manifest(
        name="phone_glass",
        version="1.2.0",
        task="inspect",
        description="d",
        created_at="2026-11-23T12:00:00Z",
        input=IMAGE,
        labels=["good", "scratch"],
        models={"onnx": MODEL},
        policy=INSPECT,
        gate={"brightness": manifest.Limits(min=0.1, max=0.9)},
        reference={"confidence": HISTOGRAM},
        golden=GOLDEN,
        lineage={"commit": "abc"},
        metrics={"auroc": 0.99},
        audit={"passed": True},
        files={"m.onnx": FILE, "in.npy": FILE, "out.npy": FILE},
    ),
    osimage.OsManifest(
        kind="os",
        name="os-x86-box",
        version="1.1.0",
        created_at="2026-11-28T12:00:00Z",
        profile="x86-box",
        architecture="amd64",
        root=FILE,
        files={"vmlinuz": FILE, "initrd": FILE},
        lineage={"recipe": DIGEST},
    ),
    OS_REPORT,
]


def every_model() -> list[type[WireModel]]:
    """Return every model of the contract that can travel."""
    found: set[type[WireModel]] = set()
    for module in iter_modules(edge.wire.__path__):
        for value in vars(import_module(f"edge.wire.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, WireModel) and value is not WireModel:
                found.add(value)
    return sorted(found, key=lambda model: model.__name__)
