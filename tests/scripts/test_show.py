import json
import shutil
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.nets.pneumonia_cnn import PneumoniaCNN
from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageSegmenter

FUNDUS = Path(__file__).parents[2] / "bundles" / "two_stage_segmentation" / "samples"
XRAYS = Path(__file__).parents[2] / "bundles" / "covid_xray_transfer" / "samples"
CHANNELS = [4, 4, 4, 4, 4]


@pytest.fixture(scope="module")
def module(load_script) -> ModuleType:
    return load_script("show")


def test_four_panels_are_drawn_of_a_shipped_item(module: ModuleType, polyp_samples: Path, tmp_path: Path) -> None:
    module.show_blur(str(polyp_samples / "datalist.json"), output=str(tmp_path / "blur.png"))
    with Image.open(tmp_path / "blur.png") as image:
        picture = np.asarray(image.convert("RGB"))
    quarters = np.array_split(picture, 4, axis=1)
    assert all(quarter.std() > 10 for quarter in quarters)
    grey = quarters[1]
    assert (grey[..., 0] == grey[..., 2]).all(), "the attention map is drawn in grey"


def test_absent_items_and_those_without_gaze_are_named(module: ModuleType, polyp_samples: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="item is 99, expected 0 to 19"):
        module.show_blur(str(polyp_samples / "datalist.json"), item=99)
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": "a.png"}]}))
    with pytest.raises(ValueError, match="training item 0 has no fixations"):
        module.show_blur(str(tmp_path / "list.json"))


def count(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    """Pixels of about one colour."""
    return int((np.abs(picture.astype(int) - color).sum(-1) < 30).sum())


def test_the_chosen_windows_are_framed_and_the_result_is_drawn(module: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TwoStageSegmenter(StridedUNet(channels=CHANNELS), StridedUNet(channels=CHANNELS))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    module.show_windows(
        str(FUNDUS / "images" / "Image_02L.jpg"),
        label=str(FUNDUS / "masks" / "Image_02L_1stHO.png"),
        ckpt_path=str(tmp_path / "model.pt"),
        output=str(tmp_path / "windows.png"),
        channels=CHANNELS,
        image_size=128,
        conditioned=False,
    )
    with Image.open(tmp_path / "windows.png") as picture:
        thirds = np.array_split(np.asarray(picture.convert("RGB")), 3, axis=1)
    assert [count(third, (255, 165, 0)) > 100 for third in thirds] == [True, True, False]


def test_images_of_each_class_stand_beside_what_speaks_for_the_call(module: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PneumoniaCNN(3, channels=[4, 4], dense_units=8, image_size=32)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    knobs = {"channels": [4, 4], "dense_units": 8, "image_size": 32, "ckpt_path": str(tmp_path / "model.pt")}
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    module.show_cam(str(XRAYS / "datalist.json"), each=1, output=str(small), **knobs)
    module.show_cam(str(XRAYS / "datalist.json"), each=2, output=str(large), **knobs)
    with Image.open(small) as one_row, Image.open(large) as two_rows:
        assert two_rows.height > 1.5 * one_row.height
        picture = np.asarray(one_row.convert("RGB")).astype(int)
    sixths = np.array_split(picture[:, : int(0.88 * picture.shape[1])], 6, axis=1)
    colour = [np.ptp(part, axis=-1).max() > 60 for part in sixths]
    assert colour == [False, True] * 3
    with pytest.raises(ValueError, match=r"--size is no value of inference\.json"):
        module.show_cam(str(XRAYS / "datalist.json"), size=3)


def test_an_unknown_knob_is_named(module: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"--windows is no value of inference\.json"):
        module.show_windows("a.png", windows=3)


def test_hits_misses_and_false_alarms_have_their_own_colours_and_make_the_dice(module: ModuleType) -> None:
    truth, mask = np.zeros((2, 8, 8), dtype=bool)
    truth[:, :4], mask[:, 3:5] = True, True  # 8 hits, 24 misses, 8 false alarms
    axis = plt.figure().subplots()
    dice = module.draw_outcomes(axis, np.zeros((8, 8, 3), np.uint8), mask, truth, name="half")
    assert dice == pytest.approx(2 * 8 / (32 + 16))
    assert axis.get_title() == "half: Dice 0.333"
    picture = axis.images[0].get_array()
    strong = {outcome: tuple(int(0.75 * c) for c in color) for outcome, color in module.OUTCOMES.items()}
    assert {outcome: count(picture, color) for outcome, color in strong.items()} == {
        "hit": 8,
        "miss": 24,
        "false alarm": 8,
    }
    assert {text.get_text() for text in axis.get_legend().get_texts()} == set(module.OUTCOMES)
    plt.close()


def test_masks_are_drawn_beside_their_labels_with_the_mean_dice(
    module: ModuleType, polyp_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = json.loads((polyp_samples / "datalist.json").read_text())["test"]
    for item in items:
        shutil.copy(polyp_samples / item["label"], tmp_path / f"{Path(item['image']).stem}.png")
    drawn: list = []
    monkeypatch.setattr(module.plt, "close", drawn.append)
    module.show_masks(str(tmp_path), datalist=str(polyp_samples / "datalist.json"), output=str(tmp_path / "m.png"))
    assert drawn[0].get_suptitle() == f"6 of {len(items)} test images, mean Dice at their own size 1.000"
    assert (tmp_path / "m.png").stat().st_size > 5000
