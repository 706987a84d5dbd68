"""Programs saved by torch.export.save come in as bundles that answer as the program does, or are refused plainly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bundle import load
from edge.errors import ConfigError, ModelError
from export.foreign import Asked
from export.wrap import wrap
from tests.export.test_wrap import HEIGHT, MEAN, STD, WIDTH, chances, pictures, some_picture, wish

__all__ = ["pictures"]

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def network() -> Any:
    """Return a small network whose attention has to know the batch, as many programs do."""
    torch.manual_seed(5)

    class Small(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(
                torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU6(), torch.nn.Dropout(0.5)
            )
            self.look = torch.nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, pictures: Any) -> Any:
            places = self.body(pictures).flatten(2).transpose(1, 2)
            return self.head(self.look(places, places, places, need_weights=False)[0].mean(1))

    return Small().eval()


def saved(folder: Path, *, batch: int = 1, open_axes: dict[int, Any] | None = None) -> Path:
    """Write a program and return its file."""
    shape = (torch.zeros(batch, 3, HEIGHT, WIDTH),)
    program = torch.export.export(network(), shape, dynamic_shapes=(open_axes,) if open_axes else None)
    path = folder / "program.pt2"
    torch.export.save(program, str(path))
    return path


def expected() -> Any:
    """Return the probabilities of the network itself."""
    rgb = some_picture()[:, :, ::-1].astype(np.float32) / 255
    tensor = ((rgb - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)[None]
    with torch.no_grad():
        return torch.softmax(network()(torch.from_numpy(np.ascontiguousarray(tensor, np.float32))), 1)[0].numpy()


@pytest.mark.parametrize("batch", [1, 2])
def test_saved_program_answers_on_a_device_as_in_torch(batch: int, pictures: Path, tmp_path: Path) -> None:
    free = {0: torch.export.Dim("n")} if batch > 1 else None
    done = wrap(wish(saved(tmp_path, batch=batch, open_axes=free), pictures), tmp_path / "out.lsb")
    assert chances(load(done.report.path), some_picture()) == pytest.approx(expected(), abs=0.003)


def test_sizes_that_the_program_leaves_open_are_asked_for(pictures: Path, tmp_path: Path) -> None:
    auto = torch.export.Dim.AUTO
    path = saved(tmp_path, batch=2, open_axes={0: auto, 2: auto, 3: auto})
    with pytest.raises(ConfigError, match="leaves sizes open"):
        wrap(wish(path, pictures), tmp_path / "out.lsb")
    done = wrap(wish(path, pictures, asked=Asked(size=(WIDTH, HEIGHT))), tmp_path / "out.lsb")
    assert chances(load(done.report.path), some_picture()) == pytest.approx(expected(), abs=0.003)


def test_fixed_batch_and_other_files_are_refused_with_what_to_do(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected batch 1"):
        wrap(wish(saved(tmp_path, batch=4), pictures), tmp_path / "out.lsb")
    weights = tmp_path / "weights.pt2"
    torch.save(network().state_dict(), str(weights))
    with pytest.raises(ModelError) as caught:
        wrap(wish(weights, pictures), tmp_path / "out.lsb")
    assert "torch.export.save" in caught.value.hint


def test_program_with_two_inputs_is_refused(pictures: Path, tmp_path: Path) -> None:
    class Two(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, one: Any, other: Any) -> Any:
            return one.mean((2, 3)) + other

    program = torch.export.export(Two(), (torch.zeros(1, 3, HEIGHT, WIDTH), torch.zeros(1, 3)))
    path = tmp_path / "two.pt2"
    torch.export.save(program, str(path))
    with pytest.raises(ModelError, match="one input, got 2"):
        wrap(wish(path, pictures), tmp_path / "out.lsb")
