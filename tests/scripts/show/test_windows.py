import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageSegmenter

FUNDUS = Path(__file__).parents[3] / "bundles" / "two_stage_segmentation" / "samples"
IMAGE, LABEL = (str(FUNDUS / name) for name in ("images/Image_02L.jpg", "masks/Image_02L_1stHO.png"))
CHANNELS = [4, 4, 4, 4, 4]


@pytest.fixture(scope="module")
def module(load_script) -> ModuleType:
    return load_script("show.windows")


def count(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    """Pixels of about one colour."""
    return int((np.abs(picture.astype(int) - color).sum(-1) < 30).sum())


def test_the_chosen_windows_are_framed_and_the_result_is_drawn(module: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TwoStageSegmenter(StridedUNet(channels=CHANNELS), StridedUNet(channels=CHANNELS))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    module.show_windows(
        IMAGE,
        label=LABEL,
        ckpt_path=str(tmp_path / "model.pt"),
        output=str(tmp_path / "windows.png"),
        channels=CHANNELS,
        image_size=128,
        conditioned=False,
    )
    with Image.open(tmp_path / "windows.png") as picture:
        quarters = np.array_split(np.asarray(picture.convert("RGB")), 4, axis=1)
    assert [count(quarter, (255, 165, 0)) > 100 for quarter in quarters] == [True, True, False, False]


def test_an_unknown_knob_is_named(module: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"--windows is no value of inference\.json"):
        module.show_windows("a.png", windows=3)


def test_a_cell_of_a_grid_brings_its_weights_and_options(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = TwoStageSegmenter(StridedUNet(channels=CHANNELS), StridedUNet(channels=CHANNELS))
    other = StridedUNet(channels=CHANNELS)
    cells = {name: tmp_path / name for name in ("two", "other stage 1", "one", "unfinished")}
    for cell in cells.values():
        cell.mkdir()
    torch.save(network.state_dict(), cells["two"] / "model.pt")
    torch.save(other.state_dict(), tmp_path / "coarse.pt")
    knobs = {"channels": CHANNELS, "image_size": 128, "conditioned": False, "n_select": 3, "seed": 0, "max_epochs": 2}
    knobs["coarse_weights"] = str(tmp_path / "coarse.pt")
    given = {"two": {}, "other stage 1": {"ckpt_path": str(cells["two"] / "model.pt")}, "one": {"n_select": 0}}
    for name, own in given.items():
        (cells[name] / "result.json").write_text(json.dumps({"knobs": knobs | own}))
    drawn: list = []
    monkeypatch.setattr(module, "save", lambda figure, output: drawn.append(figure))
    for name in ("two", "other stage 1"):
        module.show_windows(IMAGE, cell=str(cells[name]))
    assert [figure.axes[0].get_title() for figure in drawn] == ["Image_02L.jpg: 3 windows of 32 x 32 px refined"] * 2
    first, second = (figure.axes[1].images[0].get_array() for figure in drawn)
    assert not np.allclose(first, second)  # of another stage 1
    with pytest.raises(ValueError, match="was run with one stage"):
        module.show_windows(IMAGE, cell=str(cells["one"]))
    with pytest.raises(FileNotFoundError, match="is no finished cell of clinbundles reproduce"):
        module.show_windows(IMAGE, cell=str(cells["unfinished"]))
    with pytest.raises(ValueError, match="--cell and --ckpt_path: give one of them"):
        module.show_windows(IMAGE, cell=str(cells["two"]), ckpt_path="model.pt")
