import csv
import json
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import DiceMetric
from monai.transforms import AsDiscreted, CopyItemsd
from PIL import Image
from torch import nn

from clinbundles.engines.outputs.colors import OUTCOMES, PREDICTION
from clinbundles.engines.outputs.masks import PredictionWriter, draw_contour
from clinbundles.transforms.readers.images import RGBImageReader


class BrightIsPolyp(nn.Module):
    """The mean over the channels, as a probability."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean(1, keepdim=True)


def write(files: list[Path], columns: list[int], output_dir: Path, *, with_label: bool = True, **entries) -> list[dict]:
    """Evaluate 20 x 30 images with a bright square from a column on; the label's is from column 5 on."""
    items = []
    for file, column in zip(files, columns, strict=True):
        pixels = np.full((20, 30, 3), 20, dtype=np.uint8)
        pixels[5:15, column : column + 10] = 220
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
        label = torch.zeros(1, 20, 30)
        label[:, 5:15, 5:15] = 1
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        item = {"image": MetaTensor(image, meta={"filename_or_obj": str(file)}), **entries}
        items.append(item | ({"label": label} if with_label else {}))
    evaluator = SupervisedEvaluator(
        "cpu",
        DataLoader(Dataset(items), batch_size=2),
        BrightIsPolyp(),
        postprocessing=lambda item: AsDiscreted("pred", threshold=0.5)(CopyItemsd("pred", names="probability")(item)),
        key_val_metric={
            "dice": IgniteMetricHandler(
                metric_fn=DiceMetric(ignore_empty=False), output_transform=from_engine(["pred", "label"])
            )
        }
        if with_label
        else None,
        val_handlers=[PredictionWriter(output_dir, RGBImageReader())],
    )
    evaluator.run()
    return list(csv.DictReader((output_dir / "per_image.csv").read_text().splitlines()))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Two images, the square of one found in full, that of the other missed by the label."""
    write([tmp_path / "a.png", tmp_path / "b.png"], [5, 15], tmp_path / "out")
    return tmp_path / "out"


def test_metrics_json_has_the_means_of_the_metrics_and_is_not_there_without_labels(
    written: Path, tmp_path: Path
) -> None:
    summary = json.loads((written / "metrics.json").read_text())
    assert (summary["images"], summary["failures"], summary["groups"]) == (2, 0, 2)
    assert summary["unit"] == "images, as patients are not known"
    assert summary["scores"]["dice"]["value"] == 0.5
    write([tmp_path / "a.png"], [5], tmp_path / "plain", with_label=False)
    assert not (tmp_path / "plain" / "metrics.json").exists()
    write([tmp_path / "a.png", tmp_path / "b.png"], [5, 15], tmp_path / "one", group="Smith")
    summary = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert (summary["groups"], summary["scores"]["dice"]["low"]) == (1, None)
    assert "Smith" not in str(summary)
    assert "sources" not in summary


def test_the_table_and_metrics_json_name_the_source_of_an_image_where_the_items_do(tmp_path: Path) -> None:
    rows = write([tmp_path / "a.png", tmp_path / "b.png"], [5, 15], tmp_path / "out", source="C1")
    assert [row["source"] for row in rows] == ["C1", "C1"]
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert summary["sources"]["C1"]["scores"] == summary["scores"]


def test_a_run_that_ends_in_the_middle_leaves_the_rows_of_the_images_that_were_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{letter}.png" for letter in "abcd"]
    done = count()
    monkeypatch.setattr(
        BrightIsPolyp, "forward", lambda _, image: image.mean(1, keepdim=True) * (1 // (1 - next(done)))
    )
    with pytest.raises(ZeroDivisionError):
        write(files, [5, 6, 7, 8], tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "per_image.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["a.png", "b.png"]
    assert rows[0]["height"] == "20"


def test_masks_are_written_rows_first_as_0_and_255(written: Path) -> None:
    mask = np.asarray(Image.open(written / "masks" / "b.png"))
    assert mask.shape == (20, 30)
    assert (mask[5:15, 15:25] == 255).all()
    assert mask.sum() == 100 * 255


def test_the_table_has_one_row_an_image_with_shape_share_and_metrics(written: Path) -> None:
    rows = list(csv.DictReader((written / "per_image.csv").read_text().splitlines()))
    assert [r["image"] for r in rows] == ["a.png", "b.png"]
    assert [float(r["dice"]) for r in rows] == [1.0, 0.0]
    assert rows[0]["height"] == "20"
    assert float(rows[0]["segmented_share"]) == pytest.approx(100 / 600, abs=1e-6)
    assert rows[0]["n_regions"] == "1"
    assert float(rows[0]["max_probability"]) == pytest.approx(220 / 255, abs=1e-5)


def test_the_overlay_shows_hits_misses_and_false_alarms_in_their_colours(tmp_path: Path) -> None:
    write([tmp_path / "a.png"], [10], tmp_path / "out")
    overlay = np.asarray(Image.open(tmp_path / "out" / "overlays" / "a.png"))
    for outcome, column, grey in (("miss", 7, 16), ("hit", 12, 176), ("false alarm", 17, 176)):
        mixed = 0.25 * grey + 0.75 * np.array(OUTCOMES[outcome])
        assert overlay[10, column].tolist() == mixed.astype(int).tolist()
    assert tuple(overlay[0, 0]) == (16, 16, 16)


def test_an_overlay_without_a_label_shows_the_outline_of_the_prediction(tmp_path: Path) -> None:
    write([tmp_path / "a.png"], [10], tmp_path / "out", with_label=False)
    overlay = np.asarray(Image.open(tmp_path / "out" / "overlays" / "a.png"))
    assert tuple(overlay[5, 12]) == PREDICTION
    assert tuple(overlay[10, 15]) == (220, 220, 220)
    assert tuple(overlay[0, 0]) == (20, 20, 20)


def test_a_contour_lies_inside_the_mask_leaves_the_input_alone_and_fits_a_larger_image() -> None:
    image, mask = np.zeros((40, 40, 3), dtype=np.uint8), np.zeros((20, 20), dtype=bool)
    mask[5:15, 5:15] = True
    drawn = draw_contour(image, mask, (1, 2, 3))
    assert image.max() == 0
    assert tuple(drawn[10, 20]) == (1, 2, 3)
    assert tuple(drawn[20, 20]) == (0, 0, 0)
    assert drawn[..., 0].sum() == 20 * 4 - 4


def test_images_of_one_name_keep_a_mask_an_overlay_and_a_row_each(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("p1/frame_1.png", "p2/frame_1.png", "p2/x.png", "p2/x.bmp")]
    rows = write(files, [0, 5, 10, 15], tmp_path / "out")
    assert [row["image"] for row in rows] == ["p1/frame_1.png", "p2/frame_1.png", "x.png", "x.bmp"]
    stems = ["p1_frame_1", "p2_frame_1", "x.png", "x.bmp"]
    for folder in ("masks", "overlays"):
        assert sorted(path.name for path in (tmp_path / "out" / folder).iterdir()) == sorted(f"{s}.png" for s in stems)
    for stem, column in zip(stems, [0, 5, 10, 15], strict=True):
        mask = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{stem}.png"))
        assert np.flatnonzero(mask.any(axis=0)).tolist() == list(range(column, column + 10))


def test_a_patient_is_a_number_in_the_table_and_absent_where_the_items_have_no_group(tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    assert "patient" not in write(files, [0, 5], tmp_path / "out")[0]
    rows = write(files, [0, 5], tmp_path / "grouped", group="Smith, 1950")
    assert [row["patient"] for row in rows] == ["0", "0"]
    assert not [path for path in (tmp_path / "grouped").iterdir() if path.is_file() and "Smith" in path.read_text()]


def test_an_image_that_could_not_be_read_has_a_row_and_no_files(tmp_path: Path) -> None:
    (tmp_path / "b.png").touch()
    items = [{"image": MetaTensor(torch.zeros(3, 4, 4), meta={"filename_or_obj": str(tmp_path / "b.png")})}]
    writer = PredictionWriter(tmp_path / "out", RGBImageReader())
    engine = SupervisedEvaluator(
        "cpu", DataLoader(Dataset([items[0] | {"failure": f"{tmp_path}/b.png: is empty."}])), BrightIsPolyp()
    )
    writer.attach(engine)
    with pytest.raises(ValueError, match=r"0 of 1 images could be read"):
        engine.run()
    row = next(csv.DictReader((tmp_path / "out" / "per_image.csv").read_text().splitlines()))
    assert (row["image"], row["failure"], row["segmented_share"]) == ("b.png", "b.png: is empty.", "")
    assert not list((tmp_path / "out").rglob("*.png"))
