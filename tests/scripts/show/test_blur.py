import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def module(load_script) -> ModuleType:
    return load_script("show.blur")


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


@pytest.mark.parametrize(("arm", "title"), [("positive", "positive: σ = 1 + 0.3"), ("reverse", "reverse: σ = 1 − 0.3")])
def test_an_arm_is_drawn_as_the_paper_does_at_the_size_of_training(
    module: ModuleType, polyp_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str, title: str
) -> None:
    drawn: list = []
    monkeypatch.setattr(module, "save", lambda figure, output: drawn.append(figure))
    for weight in (None, 0.0):
        module.show_blur(str(polyp_samples / "datalist.json"), arm=arm, image_size=96, weight=weight)
    plain, blurred, attention = drawn[0].axes
    assert [axis.images[0].get_array().shape[:2] for axis in drawn[0].axes] == [(96, 96)] * 3
    assert (plain.get_title(), attention.get_title()) == ("96 × 96 px", "attention p")
    assert blurred.get_title().startswith(title)
    assert np.ptp(attention.images[0].get_array()) == 1
    # σ is 1 everywhere without the weight, and more (positive) or less (reverse) where nobody looked.
    sharpness = [np.abs(np.diff(figure.axes[1].images[0].get_array(), axis=1)).mean() for figure in drawn]
    assert (sharpness[0] < sharpness[1]) == (arm == "positive")


def test_an_unknown_arm_is_named(module: ModuleType, polyp_samples: Path) -> None:
    with pytest.raises(ValueError, match="arm is 'original', expected positive or reverse"):
        module.show_blur(str(polyp_samples / "datalist.json"), arm="original")
