"""Tests of counting the images of a study, on a real run that warns, too."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.predict.counts import count_images, left_below
from clinbundles.scripts.predict.run import predict

BUNDLE = Path(__file__).parents[3] / "bundles" / "covid_xray_transfer"
FEW = "It has 2 grey values, expected 16 or more."


def test_a_study_that_the_bundle_warns_of_is_told_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    studies = tmp_path / "in"
    (studies / "masks").mkdir(parents=True)
    mask = np.full((64, 64), 40, np.uint8)
    mask[16:48, 16:48] = 90
    for name in "12":
        Image.fromarray(mask).save(studies / "masks" / f"{name}.png")
    xray = Image.open(min((BUNDLE / "samples" / "images").iterdir()))
    xray.save(studies / "xray.png")
    predict(str(BUNDLE), str(studies), str(tmp_path / "out"))
    assert "2 studies in: 2 done (1 of them with a warning, see status.csv); " in capsys.readouterr().out
    rows = {row["study"]: row for row in csv.DictReader((tmp_path / "out" / "status.csv").read_text().splitlines())}
    assert rows["masks"]["sentence"] == f"2 of 2 images have a warning; of the first: 1.png: {FEW}"
    assert [rows[name]["warned"] for name in ("masks", "xray")] == ["2", "0"]
    assert rows["xray"]["sentence"] == ""


def test_images_are_counted_by_the_table_and_not_without_one(tmp_path: Path) -> None:
    assert count_images(tmp_path) == (None, None, None, "")
    table = tmp_path / "per_image.csv"
    table.write_text(f"image,failure,warning\na.png,,\nb.png,torn.,\nc.png,,{FEW!r}\n".replace("'", '"'))
    sentence = f"1 of 2 images have a warning; of the first: c.png: {FEW}"
    assert count_images(tmp_path) == (2, 1, 1, sentence)
    table.write_text("image,failure\na.png,\n")
    assert count_images(tmp_path) == (1, 0, 0, "")


def test_images_below_are_left_out_unless_the_table_has_them(tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert left_below(tmp_path, 1, 0)[0] == 1
    assert left_below(tmp_path, 2, 0) == (0, "")
