"""Studies that hold nothing to apply a bundle to, as a folder of a Windows share has them."""

import csv
import shutil
from pathlib import Path

import pytest

from clinbundles.scripts.predict.run import predict

BUNDLE = Path(__file__).parents[3] / "bundles" / "gaze_polyp_segmentation"


def test_what_holds_no_image_is_refused_and_not_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    studies = tmp_path / "in"
    (studies / "notes").mkdir(parents=True)
    (studies / "notes" / "read me.txt").write_text("of another day")
    (studies / "Thumbs.db").write_bytes(b"1")
    shutil.copy(min((BUNDLE / "samples").rglob("*.jpg")), studies / "a.jpg")
    for _ in range(2):
        predict(str(BUNDLE), str(studies), str(tmp_path / "out"))
        assert "3 studies in: 2 refused, 1 done" in capsys.readouterr().out
    rows = {row["study"]: row for row in csv.DictReader((tmp_path / "out" / "status.csv").read_text().splitlines())}
    assert rows["Thumbs"]["sentence"] == "Thumbs: holds no image of any kind that is read."
