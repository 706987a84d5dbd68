"""The examples that a network was most wrong about, drawn with its evidence over them, for a report.

Rules:
- Which are worst is said by networks that never saw them; the evidence drawn is the shipped network's.
- Pictures stay in the report; nothing of them goes into the bundle.
"""

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.preprocess import image_tensor
from edge.wire.manifest import ImageInput
from export import golden
from export.dataset import Item, read
from export.evidence import Judged

_EACH = 4
_LONGER_SIDE = 360


def worst(bundle: Bundle, judged: Judged, items: list[Item]) -> list[dict[str, str]]:
    """Return the worst escapes and false rejects, then the plainest defects: `title`, `words`, `png` (base64)."""
    if not judged.inspects or not isinstance(bundle.manifest.input, ImageInput):
        return []
    score, bad = judged.defect_score(), judged.defective()
    kept = ~judged.refused
    ways = {
        "defective, but looks good": (bad & kept & (score < 0.5), score),
        "good, but looks defective": (~bad & kept & (score >= 0.5), -score),
        "plainly defective": (bad & kept & (score >= 0.5), -score),
    }
    listed = [
        (title, int(i))
        for title, (chosen, order) in ways.items()
        for i in np.flatnonzero(chosen)[np.argsort(order[chosen], kind="stable")][:_EACH]
    ]
    if not listed:
        return []
    values, heats = _looked(bundle, [items[i] for _, i in listed])
    reach = None if heats is None else span(list(heats))
    found = []
    for at, (title, i) in enumerate(listed):
        plain = np.ascontiguousarray(values[at][..., ::-1])
        shown = plain if heats is None or reach is None else overlaid(values[at], heats[at], reach)
        words = f"{items[i].file}: defect score {float(score[i]):.3f}"
        found.append({"title": title, "words": words, "png": png(shown)})
    return found


def span(heats: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Return the evidence from which on, and at which fully, red is drawn: networks differ in their scale.

    From what nine cells in ten stay below to the most in any of these pictures, so that clean ones stay pale.
    """
    values = np.concatenate([heat.ravel() for heat in heats])
    low = float(np.quantile(values, 0.9))
    return low, max(float(values.max()), low + 1e-6)


def overlaid(picture: NDArray[np.uint8], heat: NDArray[np.float32], reach: tuple[float, float]) -> NDArray[np.uint8]:
    """Return a picture (height, width, 3 or 1) RGB with the evidence (rows, columns) over it in red, as BGR.

    Args:
        picture: as the network takes it.
        heat: evidence per cell.
        reach: as `span` gives it.
    """
    rows, columns = picture.shape[:2]
    shown = picture if picture.shape[2] == 3 else np.repeat(picture, 3, 2)
    large = np.asarray(cv2.resize(heat.astype(np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR))
    share = np.clip((large - reach[0]) / (reach[1] - reach[0]), 0, 1)
    alpha = (0.7 * share)[..., None]
    mixed = shown * (1 - alpha) + np.array([230, 20, 20]) * alpha
    return np.asarray(mixed[..., ::-1], np.uint8)


def png(picture: NDArray[np.uint8], longer_side: int = _LONGER_SIDE) -> str:
    """Return a picture (BGR) as PNG in base64, made smaller if it is larger than `longer_side`."""
    rows, columns = picture.shape[:2]
    scale = min(1.0, longer_side / max(rows, columns))
    size = (max(round(columns * scale), 1), max(round(rows * scale), 1))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return base64.b64encode(cv2.imencode(".png", small)[1].tobytes()).decode()


def _looked(bundle: Bundle, items: list[Item]) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Return pictures as the network takes them (n, height, width, 3), and its evidence (n, rows, columns)."""
    spec, content = bundle.model("onnx" if "onnx" in bundle.manifest.models else bundle.manifest.prefer)
    assert isinstance(bundle.manifest.input, ImageInput)
    pictures = []
    for item in items:
        data = read(item).data
        assert data is not None
        pictures.append(image_tensor(data, bundle.manifest.input)[0])
    values = np.stack(pictures)
    return values, golden.split(golden.answers(content, spec, values), spec).heatmap
