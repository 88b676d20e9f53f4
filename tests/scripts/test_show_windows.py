from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageSegmenter

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "bundles" / "two_stage_segmentation" / "samples"
CHANNELS = [4, 4, 4, 4, 4]


@pytest.fixture(scope="module")
def module(load_script) -> ModuleType:
    return load_script("show_windows")


def test_the_chosen_windows_are_framed_and_the_result_is_drawn(module: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TwoStageSegmenter(StridedUNet(channels=CHANNELS), StridedUNet(channels=CHANNELS))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    module.show_windows(
        str(SAMPLES / "images" / "Image_02L.jpg"),
        label=str(SAMPLES / "masks" / "Image_02L_1stHO.png"),
        ckpt_path=str(tmp_path / "model.pt"),
        output=str(tmp_path / "windows.png"),
        channels=CHANNELS,
        image_size=128,
        conditioned=False,
    )
    with Image.open(tmp_path / "windows.png") as picture:
        thirds = np.array_split(np.asarray(picture.convert("RGB")).astype(int), 3, axis=1)
    orange = [int(((third - [255, 165, 0]).__abs__().sum(-1) < 30).sum()) for third in thirds]
    assert orange[0] > 100
    assert orange[1] > 100
    yellow = (np.abs(thirds[2] - [255, 255, 0]).sum(-1) < 30).sum()
    assert yellow > 100


def test_an_unknown_knob_is_named(module: ModuleType) -> None:
    with pytest.raises(ValueError, match="--windows is no top-level value"):
        module.show_windows("a.png", windows=3)
