import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


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
