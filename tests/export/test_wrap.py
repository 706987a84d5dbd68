"""Models from elsewhere: each comes in and answers as it did where it was made, or is refused with what to do."""

import json
import shutil
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from edge.bundle import Bundle, load
from edge.calibrate import probabilities
from edge.engines import EngineSettings, open_engine
from edge.errors import ConfigError, LinesideError, ModelError
from edge.preprocess import preprocess, to_model
from edge.wire.manifest import Calibration, KeywordPolicy
from export.__main__ import app
from export.foreign import Asked
from export.foreign.labels import read_labels
from export.foreign.sounds import sound_input
from export.wrap import Wish, wrap
from tests.data import real_data

WIDTH, HEIGHT = 20, 16
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
Change = Callable[[onnx.ModelProto], None]


def network(*, last: str | None = None, labels: int = 3, batch: int | str = 1, opset: int = 17) -> onnx.ModelProto:
    """Return a float network, channels first: convolution, mean, linear layer and perhaps a softmax or the like."""
    rng = np.random.default_rng(3)
    weights = {
        "w1": rng.normal(0, 0.4, (6, 3, 3, 3)),
        "b1": rng.normal(0, 0.1, 6),
        "w2": rng.normal(0, 2.0, (labels, 6)),
        "b2": rng.normal(0, 0.1, labels),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["z" if last else "y"], transB=1),
    ]
    if last:
        nodes.append(helper.make_node(last, ["z"], ["y"]))
        if last != "Sigmoid":
            nodes[-1].attribute.append(helper.make_attribute("axis", 1))
    graph = helper.make_graph(
        nodes,
        "made elsewhere",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, labels])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders `a`, `b` and `c` with twelve pictures each."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(7)
    for index, label in enumerate("abc"):
        (root / label).mkdir()
        for number in range(12):
            picture = rng.integers(0, 120, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            picture[..., index] += 90
            cv2.imwrite(str(root / label / f"{number}.png"), picture)
    return root


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    """Write a model."""
    path = folder / "foreign.onnx"
    onnx.save(model, str(path))
    return path


def wish(model: Path, data: Path, **more: Any) -> Wish:
    """Return what a user asks for: ImageNet's scale, three labels."""
    return replace(Wish(model, ["a", "b", "c"], data, "foreign", mean=MEAN, std=STD), **more)


def chances(bundle: Bundle, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what a device makes of a picture, without calibration, in every format that agrees."""
    engine = open_engine(bundle, EngineSettings(isolation="inline", deadline_s=60))
    try:
        values = preprocess(picture, None, bundle.manifest.input)
        logits = engine.session.infer(to_model(values, engine.spec.input))
        return np.asarray(probabilities(logits[None], Calibration())[0])
    finally:
        engine.session.close()


def expected(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the softmax of the plain network's answer, in numpy's own way through onnxruntime."""
    import onnxruntime as ort

    rgb = picture[:, :, ::-1].astype(np.float32) / 255
    tensor = ((rgb - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)[None]
    session = ort.InferenceSession(network().SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"x": np.ascontiguousarray(tensor, np.float32)})
    powers = np.exp(logits[0].astype(np.float64) - logits[0].max())
    return np.asarray(powers / powers.sum())


def some_picture() -> NDArray[np.uint8]:
    """Return a picture as those of the folder, BGR."""
    picture = np.random.default_rng(11).integers(0, 120, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    picture[..., 1] += 90
    return picture


def no_change(_: onnx.ModelProto) -> None:
    """Leave it as it is."""


def takes_channels_last(model: onnx.ModelProto) -> None:
    """Put a transposition in front."""
    graph = model.graph
    graph.node[0].input[0] = "first"
    graph.node.insert(0, helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]))
    graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, HEIGHT, WIDTH, 3]))


def lists_weights_as_inputs(model: onnx.ModelProto) -> None:
    """As files of old IR versions do."""
    for item in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, item.dims))


def in_half_precision(model: onnx.ModelProto) -> None:
    """Everything in float16."""
    for item in model.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), item.name))
    for value in [model.graph.input[0], model.graph.output[0]]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16


def gives_four_axes(model: onnx.ModelProto) -> None:
    """The answer as (1, labels, 1, 1)."""
    model.graph.node[-1].output[0] = "flat"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3, 1, 1], np.int64), "four"))
    model.graph.node.append(helper.make_node("Reshape", ["flat", "four"], ["y"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 1, 1]))


@pytest.mark.parametrize("last", [None, "Softmax", "LogSoftmax"])
@pytest.mark.parametrize(
    "change",
    [no_change, takes_channels_last, lists_weights_as_inputs, in_half_precision, gives_four_axes],
)
@pytest.mark.parametrize("quantize", [False, True])
def test_float_onnx_answers_on_a_device_as_where_it_was_made(
    last: str | None, change: Change, quantize: bool, pictures: Path, tmp_path: Path
) -> None:
    model = network(last=last)
    change(model)
    done = wrap(wish(saved(model, tmp_path), pictures, quantize=quantize), tmp_path / "out.lsb")
    bundle = load(done.report.path)
    near = 0.03 if quantize else 0.003
    assert chances(bundle, some_picture()) == pytest.approx(expected(some_picture()), abs=near)
    assert done.labelled == 36
    assert bundle.manifest.models["onnx"].precision == ("int8" if quantize else "float32")


@pytest.mark.parametrize("opset", [9, 11, 13, 21])
def test_old_and_new_operator_sets_come_in(opset: int, pictures: Path, tmp_path: Path) -> None:
    model = network(opset=opset, batch="n")
    if opset > 20:
        model.ir_version = 10
    done = wrap(wish(saved(model, tmp_path), pictures, quantize=True), tmp_path / "out.lsb")
    assert chances(load(done.report.path), some_picture()) == pytest.approx(expected(some_picture()), abs=0.03)


def test_quantized_model_comes_in_both_formats_where_both_can_be_written(pictures: Path, tmp_path: Path) -> None:
    done = wrap(wish(saved(network(last="Softmax"), tmp_path), pictures, quantize=True), tmp_path / "out.lsb")
    manifest = load(done.report.path).manifest
    assert set(manifest.models) == {"onnx", "tflite"}
    assert done.report.figures["parity"]["same_label_share"] >= 0.99
    assert done.report.figures["quantization"]["agreement"] >= 0.9


def test_int8_tflite_file_is_shipped_byte_for_byte(pictures: Path, tmp_path: Path) -> None:
    first = wrap(wish(saved(network(), tmp_path), pictures, quantize=True), tmp_path / "first.lsb")
    spec, content = load(first.report.path).model("tflite")
    path = tmp_path / "foreign.tflite"
    path.write_bytes(content)
    done = wrap(wish(path, pictures), tmp_path / "second.lsb")
    bundle = load(done.report.path)
    assert bundle.model("tflite")[1] == content
    assert bundle.manifest.models["tflite"].input.scale == pytest.approx(spec.input.scale)
    assert chances(bundle, some_picture()) == pytest.approx(expected(some_picture()), abs=0.03)


def test_single_sigmoid_serves_two_labels(pictures: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"
    two.mkdir()
    for label in "ab":
        shutil.copytree(pictures / label, two / label)
    model = saved(network(last="Sigmoid", labels=1), tmp_path)
    done = wrap(wish(model, two, labels=["a", "b"]), tmp_path / "out.lsb")
    assert load(done.report.path).manifest.models["onnx"].output.shape == [1, 1]
    assert chances(load(done.report.path), some_picture()).sum() == pytest.approx(1.0)


def test_one_of_several_outputs_is_taken_when_it_is_named(pictures: Path, tmp_path: Path) -> None:
    model = network()
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, [1, 6]))
    path = saved(model, tmp_path)
    with pytest.raises(ModelError, match="expected one output, got 2: y, f"):
        wrap(wish(path, pictures), tmp_path / "out.lsb")
    done = wrap(wish(path, pictures, asked=Asked(output="y")), tmp_path / "out.lsb")
    assert chances(load(done.report.path), some_picture()) == pytest.approx(expected(some_picture()), abs=0.003)


def test_open_size_is_asked_for_and_then_fixed(pictures: Path, tmp_path: Path) -> None:
    model = network()
    for index in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[index].dim_param = f"side{index}"
    path = saved(model, tmp_path)
    with pytest.raises(ConfigError) as caught:
        wrap(wish(path, pictures), tmp_path / "out.lsb")
    assert "--size" in caught.value.hint
    done = wrap(wish(path, pictures, asked=Asked(size=(WIDTH, HEIGHT))), tmp_path / "out.lsb")
    assert chances(load(done.report.path), some_picture()) == pytest.approx(expected(some_picture()), abs=0.003)


def test_inspection_needs_to_know_the_good_label(pictures: Path, tmp_path: Path) -> None:
    path = saved(network(), tmp_path)
    with pytest.raises(ConfigError) as caught:
        wrap(wish(path, pictures, task="inspect"), tmp_path / "out.lsb")
    assert "--good" in caught.value.hint
    done = wrap(wish(path, pictures, good="b"), tmp_path / "out.lsb")
    manifest = load(done.report.path).manifest
    assert (manifest.task, manifest.labels) == ("inspect", ["a", "good", "c"])
    assert done.labelled == 36, "the folder keeps the name that it has"


def test_without_labels_nothing_is_accepted_unless_the_user_says_from_where(pictures: Path, tmp_path: Path) -> None:
    flat = pictures / "a"
    path = saved(network(), tmp_path)
    policy = load(wrap(wish(path, flat), tmp_path / "out.lsb").report.path).manifest.policy
    assert isinstance(policy, KeywordPolicy) and policy.accept_min > 1
    policy = load(wrap(wish(path, flat, accept_min=0.6), tmp_path / "out.lsb").report.path).manifest.policy
    assert isinstance(policy, KeywordPolicy) and (policy.accept_min, policy.guarantee) == (0.6, None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mean": None, "std": None}, "--mean 0.485"),
        ({"mean": [123.7, 116.3, 103.5]}, "--scale 1"),
        ({"mean": [0.5, 0.5]}, "expected 1 or 3 numbers"),
        ({"labels": ["a", "b"]}, "expected 3 names, got 2"),
        ({"sound": sound_input("mlperf-tiny", [])}, "the model takes [1, 3, 16, 20]"),
        ({"quantize": True, "labels": ["a", "b", "c", "d"]}, "expected 3 names, got 4"),
    ],
)
def test_what_the_file_cannot_say_is_asked_for(
    changes: dict[str, Any], says: str, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        wrap(wish(saved(network(), tmp_path), pictures, **changes), tmp_path / "out.lsb")
    assert says in caught.value.for_people()


def test_scale_for_bytes_that_the_model_takes_as_they_come_is_refused(pictures: Path, tmp_path: Path) -> None:
    model = network()
    model.graph.node[0].input[0] = "as_float"
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["as_float"], to=TensorProto.FLOAT))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    path = saved(model, tmp_path)
    with pytest.raises(ConfigError, match="takes uint8 as it comes"):
        wrap(wish(path, pictures), tmp_path / "out.lsb")
    assert wrap(wish(path, pictures, mean=None, std=None), tmp_path / "out.lsb").labelled == 36


def test_operator_set_of_the_future_is_refused_in_words_and_not_in_source_code(pictures: Path, tmp_path: Path) -> None:
    model = network()
    model.opset_import[0].version = 99
    with pytest.raises(ModelError) as caught:
        wrap(wish(saved(model, tmp_path), pictures), tmp_path / "out.lsb")
    assert "pset 99" in str(caught.value) and "::" not in str(caught.value)


def test_folder_that_is_no_label_is_named(pictures: Path, tmp_path: Path) -> None:
    path = saved(network(), tmp_path)
    with pytest.raises(ConfigError, match="c: the model has no such label"):
        wrap(wish(path, pictures, labels=["a", "b", "other"]), tmp_path / "out.lsb")


def two_inputs(model: onnx.ModelProto) -> None:
    """A second input that is added to the answer: state, for example."""
    model.graph.node[-1].output[0] = "z"
    model.graph.node.append(helper.make_node("Add", ["z", "state"], ["y"]))
    model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, 3]))


def batch_of_eight(model: onnx.ModelProto) -> None:
    """A fixed batch."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8


def foreign_operator(model: onnx.ModelProto) -> None:
    """An operator of somebody's own."""
    model.graph.node[1].op_type, model.graph.node[1].domain = "Twist", "com.somebody"
    model.opset_import.append(helper.make_opsetid("com.somebody", 1))


def gives_a_picture(model: onnx.ModelProto) -> None:
    """The output of a segmenter."""
    del model.graph.node[2:]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("r", TensorProto.FLOAT, None))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (two_inputs, "expected one input, got 2: x, state"),
        (batch_of_eight, "expected batch 1"),
        (foreign_operator, "com.somebody"),
        (gives_a_picture, "expected one number per label, got shape"),
    ],
)
def test_model_that_cannot_run_alone_is_refused_with_what_to_do(
    change: Change, says: str, pictures: Path, tmp_path: Path
) -> None:
    model = network()
    change(model)
    with pytest.raises(ModelError) as caught:
        wrap(wish(saved(model, tmp_path), pictures), tmp_path / "out.lsb")
    assert says in str(caught.value) and caught.value.hint


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 300, b"\x1c\x00\x00\x00TFL3" + b"\xff" * 300])
def test_damaged_file_is_refused(suffix: str, content: bytes, pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        wrap(wish(path, pictures), tmp_path / "out.lsb")


def test_same_model_and_examples_give_the_same_bundle(pictures: Path, tmp_path: Path) -> None:
    path = saved(network(), tmp_path)
    digests = {wrap(wish(path, pictures), tmp_path / f"{n}.lsb").report.ref.digest for n in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0 cat\n1 dog\n", ["cat", "dog"]),
        ("crane\ncrane\n2 of a kind\n", ["crane", "crane (2)", "2 of a kind"]),
        ('{"1": "dog", "0": "cat"}', ["cat", "dog"]),
        ('["cat", "dog"]', ["cat", "dog"]),
        ("7\n8\n", ["7", "8"]),
    ],
)
def test_files_of_labels_are_read_as_people_write_them(text: str, names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    assert read_labels(str(path)) == names


def test_label_file_that_is_not_there_is_said_so() -> None:
    with pytest.raises(LinesideError, match="there is no such file"):
        read_labels("nowhere/labels.txt")


KWS = ["down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown"]


@pytest.mark.real_data
def test_keyword_model_of_mlperf_tiny_reaches_its_target_behind_our_front_end(tmp_path: Path) -> None:
    model = real_data("mlperf-tiny") / "kws_ref_model.tflite"
    wanted = Wish(
        model,
        KWS,
        real_data("speech-commands"),
        "kws",
        sound=sound_input("mlperf-tiny", []),
        group="^[^_]+",
        alpha=0.05,
    )
    done = wrap(wanted, tmp_path / "kws.lsb")
    assert done.report.figures["heldout"]["accuracy"] >= 0.90
    assert load(done.report.path).manifest.models["tflite"].output.values == "probabilities"


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("okay_nabu", "keeps state between calls"),
        ("vad", "keeps state between calls"),
        ("person_detect", "LiteRT does not take this model"),
        ("audio_preprocessor_int8", "got int16"),
    ],
)
def test_streaming_and_unreadable_tflite_files_are_refused(
    name: str, says: str, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        wrap(wish(real_data("foreign-models") / f"{name}.tflite", pictures), tmp_path / "out.lsb")
    assert says in str(caught.value) and caught.value.hint


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("model", "labels"),
    [
        ("coral/mobilenet_v1_0.25_128_quant", 1001),
        pytest.param("coral/mobilenet_v2_1.0_224_quant", 1001, marks=pytest.mark.slow),
        ("mlperf-tiny/pretrainedResnet_quant", 10),
    ],
)
def test_foreign_classifier_comes_in_as_it_is_and_answers(
    model: str, labels: int, pictures: Path, tmp_path: Path
) -> None:
    folder, name = model.split("/")
    path = real_data(folder) / f"{name}.tflite"
    done = wrap(Wish(path, [f"class {number}" for number in range(labels)], pictures, "foreign"), tmp_path / "out.lsb")
    bundle = load(done.report.path)
    assert bundle.model("tflite")[1] == path.read_bytes()
    answer = chances(bundle, some_picture())
    assert len(answer) == labels and answer.sum() == pytest.approx(1.0)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders `high` and `low` with tones of half a second."""
    root = tmp_path_factory.mktemp("words")
    rng = np.random.default_rng(9)
    for label, hertz in (("high", 1500), ("low", 200)):
        (root / label).mkdir()
        for number in range(12):
            tone = 0.3 * np.sin(2 * np.pi * hertz * np.arange(4000) / 8000) + rng.normal(0, 0.01, 4000)
            with wave.open(str(root / label / f"{number}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes((tone * 32767).astype("<i2").tobytes())
    return root


def sound_network(shape: list[int]) -> onnx.ModelProto:
    """Return a network that takes features or samples of any shape: one linear layer of two labels."""
    count = int(np.prod(shape))
    weights = np.random.default_rng(4).normal(0, 1 / np.sqrt(count), (2, count)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "sound",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model


@pytest.mark.parametrize(
    ("features", "settings", "shape"),
    [
        ("waveform", ["sample_rate_hz=8000", "window_s=0.5"], [1, 4000]),
        ("waveform", ["sample_rate_hz=8000", "window_s=0.5"], [1, 1, 4000]),
        ("log_mel", ["sample_rate_hz=8000", "mel_bands=20"], [1, 1, 61, 20]),
        ("mfcc", ["sample_rate_hz=8000", "mel_bands=20", "coefficients=8"], [1, 61, 8]),
    ],
)
def test_model_of_sound_takes_the_features_that_are_said(
    features: str, settings: list[str], shape: list[int], words: Path, tmp_path: Path
) -> None:
    model = sound_network(shape)
    wanted = Wish(
        saved(model, tmp_path), ["high", "low"], words, "tones", sound=sound_input(features, settings), quantize=False
    )
    bundle = load(wrap(wanted, tmp_path / "out.lsb").report.path)
    sound = np.sin(np.arange(4000) / 3).astype(np.float32) * np.float32(0.3)
    values = preprocess(sound, 8000, bundle.manifest.input)
    engine = open_engine(bundle, EngineSettings(isolation="inline", deadline_s=60))
    got = engine.session.infer(to_model(values, engine.spec.input))
    engine.session.close()
    weights = numpy_helper.to_array(model.graph.initializer[0])
    assert got == pytest.approx(weights @ values.reshape(-1), abs=1e-3)


def test_sounds_without_features_are_asked_about(words: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which features does the model take"):
        wrap(Wish(saved(sound_network([1, 4000]), tmp_path), ["high", "low"], words, "tones"), tmp_path / "out.lsb")


@pytest.mark.parametrize(
    ("settings", "says"),
    [(["hops=3"], "expected name=value"), (["window_s=x"], "window_s"), (["window_s=0.001"], "shorter than one frame")],
)
def test_wrong_number_of_a_sound_feature_is_named(settings: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        sound_input("log_mel", settings)


def run(*arguments: object) -> Any:
    """Run the command."""
    return CliRunner().invoke(app, ["wrap", *map(str, arguments)])


def test_command_writes_a_bundle_and_says_how_good_it_is(pictures: Path, tmp_path: Path) -> None:
    path = saved(network(), tmp_path)
    told = run(
        path, "--labels", "a,b,c", "--calibration", pictures, "--scale", "1/255", "--out", tmp_path, "--quantize"
    )
    assert told.exit_code == 0, told.output
    assert load(tmp_path / "foreign-1.0.0.lsb").manifest.name == "foreign"
    for words in ("accuracy", "int8 agrees with float", "thresholds: accept nothing", "lineside-edge infer"):
        assert words in told.output


def test_command_tells_machines_the_same(pictures: Path, tmp_path: Path) -> None:
    path = saved(network(), tmp_path)
    told = run(path, "--labels", "a,b,c", "--calibration", pictures, "--scale", "1", "--out", tmp_path, "--json")
    found = json.loads(told.stdout)
    assert (found["task"], found["labelled"], found["ref"]["name"]) == ("keyword", 36, "foreign")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--version", "1"], "expected three numbers"),
        (["--layout", "sideways"], "expected channels_first or channels_last"),
        (["--scale", "1/0"], "expected a number"),
        (["--size", "big"], "expected WIDTHxHEIGHT"),
        (["--alpha", "2"], "between 0 and 1"),
        (["--name", "No Spaces"], "--name"),
        (["--sound", "hop_ms=20"], "--features"),
    ],
)
def test_wrong_option_is_said_plainly(arguments: list[str], says: str, pictures: Path, tmp_path: Path) -> None:
    told = run(saved(network(), tmp_path), "--labels", "a,b,c", "--calibration", pictures, *arguments)
    assert told.exit_code == 3 and says in told.output
