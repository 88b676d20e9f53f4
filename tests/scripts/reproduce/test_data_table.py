"""Tests of the table of a grid's data sets."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clinbundles.scripts.reproduce.data_table import describe_data, write_data_table
from clinbundles.scripts.reproduce.run import reproduce

BUNDLE = Path(__file__).parents[3] / "bundles" / "two_stage_segmentation"
PLAN = {"rows": {"data_set": {}}, "data_tables": {"1": {"published": {"eyes": [66, 745, 782, 768, 7.3]}}}}


def write_data(folder: Path) -> Path:
    for name, shape in (("a", (10, 20)), ("b", (30, 40))):
        mask = np.zeros(shape, np.uint8)
        mask[:, : shape[1] // (2 if name == "a" else 4)] = 255
        Image.fromarray(mask).save(folder / f"{name}.png")
    lists = {"training": [{"image": "a.jpg", "label": "a.png"}], "test": [{"image": "b.jpg", "label": "b.png"}]}
    (folder / "datalist.json").write_text(json.dumps(lists))
    return folder / "datalist.json"


def test_images_of_all_splits_are_counted_and_their_masks_are_read(tmp_path: Path) -> None:
    found = describe_data(write_data(tmp_path), tmp_path)
    assert found == {"images": 2, "height": 20, "width": 30, "foreground": 37.5}
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(ValueError, match=r"none\.json: has no items"):
        describe_data(tmp_path / "none.json", tmp_path)


def test_the_papers_values_stand_beside_them(tmp_path: Path) -> None:
    write_data(tmp_path)
    rows = {name: {"knobs": {"dataset_dir": str(tmp_path), "image_size": 768}} for name in ("eyes", "others")}
    text, table = write_data_table(PLAN, "1", rows, tmp_path, tmp_path / "out")
    lines = text.read_text().splitlines()
    assert lines[2] == "| eyes | 66 | 2 | 745 × 782 | 20 × 30 | 768 | 768 | 7.3 | 37.5 |"
    assert lines[3] == "| others | – | 2 | – | 20 × 30 | – | 768 | – | 37.5 |"
    assert pd.read_csv(table)["published_images"].tolist()[0] == 66


def test_table_1_of_the_two_stage_paper_is_written_of_the_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = {"rows": "samples", "tracking": False, "output_dir": str(tmp_path)}
    reproduce(str(BUNDLE), tables=1, **options)
    assert "| samples | – | 9 | – | 960 × 999 | – | 256 | – | " in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "data.md"]
    with pytest.raises(ValueError, match="table 1 is of the data alone"):
        reproduce(str(BUNDLE), tables="1,3a", **options)
