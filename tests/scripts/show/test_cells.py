import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts import cli
from clinbundles.transforms.readers.coco import decode_mask, read_coco

SAMPLES = Path(__file__).parents[3] / "bundles" / "pace_cell_segmentation" / "samples"
DATALIST = SAMPLES / "datalist.json"


def show(*words: object) -> None:
    cli.main(["show", *map(str, words)])


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(pixels: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((abs(pixels - color).sum(-1) < 40).sum())


def test_points_of_both_labels_are_drawn_beside_the_masks(tmp_path: Path) -> None:
    out = tmp_path / "points.png"
    show("points", DATALIST, "--item", 3, "--output", out)
    pixels = picture(out)
    left, right = np.array_split(pixels, 2, axis=1)
    assert count(right, (86, 180, 233)) > 2 * count(left, (86, 180, 233)) > 0
    four = count(right, (230, 159, 0))
    show("points", DATALIST, "--item", 3, "--n_points", 10, "--output", out)
    assert count(np.array_split(picture(out), 2, axis=1)[1], (230, 159, 0)) > four


@pytest.fixture
def label_maps(tmp_path: Path) -> Path:
    """Label maps of the test images, exact."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for item in json.loads(DATALIST.read_text())["test"]:
        coco = read_coco(SAMPLES / item["label"])
        entry = coco.image(item["image_id"])
        labels = np.zeros((entry["height"], entry["width"]), dtype=np.uint16)
        for number, annotation in enumerate(coco.annotations[item["image_id"]], start=1):
            labels[decode_mask(annotation["segmentation"])] = number
        Image.fromarray(labels).save(folder / f"{Path(item['image']).stem}.png")
    return folder


def test_each_evaluation_is_a_column_and_each_image_a_row(label_maps: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.png"
    both = f"{label_maps},{label_maps}"
    show("cells", both, "--datalist", DATALIST, "--item", "0,2", "--names", "one,two", "--output", out)
    first = picture(out).shape
    show("cells", label_maps, "--datalist", DATALIST, "--item", 0, "--crop", "0,0,64,64", "--output", out)
    second = picture(out).shape
    assert first[0] > 1.9 * second[0]
    assert first[1] > 1.4 * second[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--item", "3"], "item is 3, expected 0 to 2"),
        (["--names", "a,b"], "names: 2 names for 1 evaluations"),
        (["--crop", "1,2,3"], "expected left,top,width,height in px"),
    ],
)
def test_mistakes_end_in_a_sentence(label_maps: Path, tmp_path: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit, match=sentence):
        show("cells", label_maps, "--datalist", DATALIST, "--output", tmp_path / "a.png", *words)


def test_an_image_that_was_not_evaluated_is_named(label_maps: Path, tmp_path: Path) -> None:
    (label_maps / "245b9958.png").unlink()
    with pytest.raises(SystemExit, match=r"245b9958\.png: has no label map"):
        show("cells", label_maps, "--datalist", DATALIST, "--item", "0,1,2", "--output", tmp_path / "a.png")


def test_the_time_of_a_point_makes_a_bar_higher(tmp_path: Path) -> None:
    pixels = []
    for seconds in (0.9, 3.0):
        show("annotation_time", "--seconds_per_point", seconds, "--output", tmp_path / "a.png")
        pixels.append(count(picture(tmp_path / "a.png"), (86, 180, 233)))
    assert pixels[1] > 1.3 * pixels[0]
    with pytest.raises(SystemExit, match=r"seconds_per_point is 0\.0, expected a number above 0"):
        show("annotation_time", "--seconds_per_point", 0)
