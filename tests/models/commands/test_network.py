"""The network of commands: as large as the published one, and the same answers."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; `pip install torch` to run the recipes")

import torch

from edge.preprocess import to_model
from edge.runtimes import open_session
from edge.wire.manifest import ModelFile, TensorSpec
from models.commands.augment import at_snr
from models.commands.data import load_clips
from models.commands.network import CommandNet, published
from tests.data import real_data

pytestmark = pytest.mark.torch


def test_network_has_the_size_of_the_published_one() -> None:
    weights = sum(parameter.numel() for parameter in CommandNet().parameters())
    assert 22_000 < weights < 24_000


@pytest.mark.real_data
def test_published_weights_answer_as_the_published_file() -> None:
    path = real_data("mlperf-tiny") / "kws_ref_model.tflite"
    spec = ModelFile(
        file="kws.tflite",
        runtime="tflite",
        precision="int8",
        input=TensorSpec(name="input_1", shape=[1, 49, 10, 1], dtype="int8", scale=0.5847029, zero_point=83),
        output=TensorSpec(name="Identity", shape=[1, 12], dtype="int8", scale=1 / 256, zero_point=-128),
        golden_tolerance=1.0,
    )
    session = open_session("tflite", path.read_bytes(), spec)
    network = published(path)
    values = at_snr(load_clips(real_data("speech-commands"))[::20], {}, None, 1)
    with torch.no_grad():
        ours = torch.softmax(network(torch.from_numpy(values).permute(0, 3, 1, 2)), 1).numpy()
    theirs = np.stack([session.infer(to_model(value[None], spec.input)) for value in values])
    session.close()
    assert np.mean(ours.argmax(1) == theirs.argmax(1)) > 0.95
    assert np.abs(ours - theirs).mean() < 0.01, "8 bits against real numbers"
