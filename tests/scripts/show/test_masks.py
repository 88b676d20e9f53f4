import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def module(load_script) -> ModuleType:
    return load_script("show.masks")


def test_masks_are_drawn_beside_their_labels_with_the_mean_dice(
    module: ModuleType, polyp_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = json.loads((polyp_samples / "datalist.json").read_text())["test"]
    for item in items:
        shutil.copy(polyp_samples / item["label"], tmp_path / f"{Path(item['image']).stem}.png")
    drawn: list = []
    monkeypatch.setattr(module, "save", lambda figure, output: drawn.append(figure))
    module.show_masks(str(tmp_path), datalist=str(polyp_samples / "datalist.json"), output=str(tmp_path / "m.png"))
    assert drawn[0].get_suptitle() == f"6 of {len(items)} test images, mean Dice at their own size 1.000"


def test_masks_of_several_evaluations_stand_between_image_and_label(
    module: ModuleType, polyp_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = json.loads((polyp_samples / "datalist.json").read_text())["test"]
    for arm in ("original", "positive"):
        (tmp_path / arm / "masks").mkdir(parents=True)
        for item in items:
            with Image.open(polyp_samples / item["label"]) as label:
                mask = np.asarray(label)
            mask = mask if arm == "positive" else np.zeros_like(mask)
            Image.fromarray(mask).save(tmp_path / arm / "masks" / f"{Path(item['image']).stem}.png")
    drawn: list = []
    monkeypatch.setattr(module, "save", lambda figure, output: drawn.append(figure))
    masks = ",".join(str(tmp_path / arm / "masks") for arm in ("original", "positive"))
    stems = [Path(item["image"]).stem for item in items]
    options = {"datalist": str(polyp_samples / "datalist.json"), "images": f"{stems[3]},{stems[1]}"}
    module.show_masks(masks, **options)
    titles = [axis.get_title() for axis in drawn[0].axes]
    assert titles[:4] == [stems[1], "original: Dice 0.000", "positive: Dice 1.000", "label"]
    assert titles[4] == stems[3]
    assert drawn[0].get_suptitle().endswith("mean Dice at their own size original 0.000, positive 1.000")
    with pytest.raises(ValueError, match="names: plain are not as many as the 2 folders"):
        module.show_masks(masks, **options, names="plain")
    with pytest.raises(ValueError, match="images: 'x' is not one of"):
        module.show_masks(masks, **options | {"images": "x"})
    (tmp_path / "positive" / "masks" / f"{stems[1]}.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no such mask of"):
        module.show_masks(masks, **options)
