"""Tests of the grids of generated images."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.engines.outputs.sample_grid import SampleGrid, as_bytes, tile
from clinbundles.nets.datasetgan.generator import Generator


def test_minus_one_is_black_one_is_white_and_what_is_beyond_is_clipped() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5)
    assert as_bytes(values).ravel().tolist() == [0, 0, 128, 255, 255]


def test_every_grey_value_of_a_file_comes_back() -> None:
    grey = torch.arange(256)
    assert torch.equal(torch.from_numpy(as_bytes((grey / 127.5 - 1).view(1, 1, 1, 256)).ravel()), grey.to(torch.uint8))


def test_tiles_go_along_the_rows_first() -> None:
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    assert tile(images, 3)[..., 0].tolist() == [[0, 1, 2], [3, 4, 0]]


@pytest.mark.parametrize(("epoch", "written"), [(1, False), (2, True), (5, True)])
def test_a_grid_is_written_every_few_epochs_and_at_the_end(tmp_path: Path, epoch: int, written: bool) -> None:
    generator = Generator(8, 1, 4, 4, channel_base=32, channel_max=4)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    engine = SimpleNamespace(state=SimpleNamespace(epoch=epoch, max_epochs=5, metrics={"kimg": 12.34}))
    SampleGrid(tmp_path, generator, interval=2, rows=3).write(engine)  # type: ignore[arg-type]
    files = list(tmp_path.rglob("*.png"))
    assert [file.relative_to(tmp_path).as_posix() for file in files] == ["overlays/kimg_0012.340.png"] * written
    if written:
        assert np.asarray(Image.open(files[0])).shape == (24, 24)
        assert torch.equal(torch.get_rng_state(), state)
