"""Grid cells that found some of what twelve images hold."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clinbundles.engines.metrics.intervals import share_interval
from clinbundles.scripts.report.results import check_results
from clinbundles.scripts.reproduce.comparison import compare, describe
from clinbundles.scripts.reproduce.instances import has_instances, read_cell
from clinbundles.scripts.reproduce.tables import Cell, as_markdown, figures_of, measure, summarise
from clinbundles.transforms.readers.coco import encode_mask

SIDE, N_IMAGES = 48, 12
PLACES = [(4, 4), (24, 4), (4, 24), (24, 26)]
PLAN: dict[str, Any] = {
    "rows": {"method": ["A"]},
    "columns": {"supervision": ["mask", "points"]},
    "tables": {"1": {"title": "mask AP", "metric": "val_mask_ap", "published": {"A": [0.5, 0.4]}}},
}


def annotation(number: int, image_id: int, place: tuple[int, int], **fields: Any) -> dict[str, Any]:
    x, y = place
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[y : y + 12, x : x + 12] = True
    entry = {"id": number, "image_id": image_id, "category_id": 1, "bbox": [x, y, 12, 12]}
    return entry | {"segmentation": encode_mask(mask)} | fields


def write(path: Path, annotations: list[dict[str, Any]]) -> None:
    images = [{"id": n, "file_name": f"{n}.png", "height": SIDE, "width": SIDE} for n in range(N_IMAGES)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))


@pytest.fixture
def cell(tmp_path: Path) -> Callable[..., Cell]:
    """Write a finished cell that finds all but the last ``missed`` cells of every third image."""
    write(tmp_path / "coco.json", [annotation(10 * n + k, n, p) for n in range(N_IMAGES) for k, p in enumerate(PLACES)])
    items = [{"image": f"{n}.png", "label": "coco.json", "image_id": n} for n in range(N_IMAGES)]
    (tmp_path / "list.json").write_text(json.dumps({"test": items}))

    def make(column: str, seed: int, *, missed: int) -> Cell:
        folder = tmp_path / f"{column}{seed}"
        (folder / "test").mkdir(parents=True)
        found = [
            annotation(10 * n + k, n, place, score=0.9)
            for n in range(N_IMAGES)
            for k, place in enumerate(PLACES[: len(PLACES) - (missed if n % 3 == 0 else 0)])
        ]
        write(folder / "test" / "detections.json", found)
        (folder / "test" / "scores.json").write_text(json.dumps({"val_mask_ap": len(found) / 4 / N_IMAGES}))
        data = {"dataset_dir": str(tmp_path), "datalist": str(tmp_path / "list.json")}
        (folder / "result.json").write_text(json.dumps({"knobs": {}, "data": data}))
        return Cell("A", column, seed, folder)

    return make


TABLE = PLAN["tables"]["1"]


def test_seeds_are_averaged_and_sides_compared_in_the_same_resamples(cell: Callable) -> None:
    full = measure(TABLE, [cell("mask", seed, missed=0) for seed in (0, 1)])
    points = measure(TABLE, [cell("points", seed, missed=1 + seed) for seed in (0, 1)])
    assert full is not None
    assert points is not None
    alone = describe(full)
    assert [alone["low"], alone["high"]] == pytest.approx(share_interval(12, 12))
    assert (alone["images"], alone["groups"]) == (12, 12)
    line, own = compare(points, full), describe(points)
    mean = np.mean([one.value for one in points.by_seed.values()])
    assert 0.8 < mean < 0.95
    assert line["ratio"] == pytest.approx(mean)
    assert line["difference"] == pytest.approx(mean - 1)
    assert line["ratio_low"] < line["ratio"] < line["ratio_high"] <= 1
    # Against a value that is 1 in every resample, ratio and score move together.
    assert (line["ratio_low"], line["ratio_high"]) == pytest.approx((own["low"], own["high"]))
    assert line["p"] == pytest.approx(2 / 2**4, rel=0.2)  # four images of twelve differ, all in one direction


def test_the_same_run_has_a_ratio_of_exactly_one(cell: Callable) -> None:
    points = measure(TABLE, [cell("points", 0, missed=2)])
    assert points is not None
    line = compare(points, points)
    assert (line["ratio_low"], line["ratio"], line["ratio_high"], line["difference"], line["p"]) == (1, 1, 1, 0, 1)


def test_other_images_are_not_compared(cell: Callable) -> None:
    points = measure(TABLE, [cell("points", 0, missed=2)])
    assert points is not None
    assert points.items is not None
    assert compare(replace(points, items=points.items[::-1]), points) == {"not_compared": "the images are not the same"}


def test_a_missing_image_is_named(cell: Callable) -> None:
    made = cell("points", 0, missed=0)
    content = json.loads((made.folder / "test" / "detections.json").read_text())
    content["images"].pop(0)
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] > 0]
    (made.folder / "test" / "detections.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"0\.png: detections.json lists no images of this name"):
        read_cell(made.folder)


def test_a_table_shows_the_ratio_to_the_first_column(cell: Callable) -> None:
    cells = [cell("mask", 0, missed=0), cell("points", 0, missed=1)]
    assert all(has_instances(one.folder) for one in cells)
    assert figures_of(PLAN["tables"]["1"], cells[1].folder).tolist() == pytest.approx([44 / 48])
    summary = summarise(PLAN, ["1"], cells, "mask")
    text = as_markdown(PLAN, summary, "heading")
    assert "points / mask [95 % CI], p" in text
    ratio = summary.set_index("supervision").loc["points"]
    assert f"{ratio['ratio']:.3f} [{ratio['ratio_low']:.3f}, {ratio['ratio_high']:.3f}]" in text
    assert pd.isna(summary.set_index("supervision").loc["mask"]["ratio"])


def test_results_may_hold_ratios() -> None:
    numbers = {"mean": 0.5, "ratio": 0.97, "ratio_low": 0.9, "ratio_high": 1.01}
    run = dict.fromkeys(("command", "data", "split", "gaze", "hardware", "scale"), "a")
    run |= dict.fromkeys(("data_sha256", "split_sha256", "gaze_sha256"), "none") | {"seeds": [0]}
    result = {"run": "r", "row": "A", "column": "points", "metrics": {"val_mask_ap": numbers}}
    check_results({"runs": {"r": run}, "results": [result]}, "results.json")
