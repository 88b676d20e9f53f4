import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from PIL import Image
from torch import nn

from clinbundles.engines.outputs.colors import CELLS
from clinbundles.engines.outputs.instances import (
    InstanceWriter,
    as_geojson,
    draw_cells,
    measure_cells,
)
from clinbundles.nets.cascade_mask_rcnn.instances import label_map
from clinbundles.transforms.readers.coco import decode_mask, read_coco
from clinbundles.transforms.readers.images import RGBImageReader

SIZE = (40, 60)
BOXES = [[5.0, 5.0, 15.0, 25.0], [30.0, 10.0, 50.0, 20.0], [7.0, 5.0, 15.0, 25.0], [40.0, 30.0, 44.0, 36.0]]
# The third is another find of the first cell, and the last scores too low for the label map.
FOUND = {
    "boxes": torch.tensor(BOXES),
    "scores": torch.tensor([0.9, 0.8, 0.7, 0.3]),
    "masks": torch.ones(4, 28, 28),
}
NOTHING = {name: values[:0] for name, values in FOUND.items()}


class Finder(nn.Module):
    """Returns what is known of the images, in their order."""

    def __init__(self, found: list[dict[str, torch.Tensor]]) -> None:
        super().__init__()
        self.found = list(found)
        self.detections: list[dict[str, torch.Tensor]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.detections = [self.found.pop(0) for _ in images]
        maps = [label_map(one, (images.shape[2], images.shape[3]), score_threshold=0.5) for one in self.detections]
        return torch.stack(maps)[:, None]


def write(folder: Path, network: nn.Module, files: list[Path], **entries: list[Any]) -> Path:
    items = []
    for number, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        pixels = np.full((*SIZE, 3), 20, dtype=np.uint8)
        if file.suffix == ".tif":
            size = {"resolution": (20_000, 10_000), "resolutionunit": "CENTIMETER"}
            tifffile.imwrite(file, pixels, photometric="rgb", metadata=None, **size)
        else:
            Image.fromarray(pixels).save(file)
        image = MetaTensor(torch.rand(3, *SIZE), meta={"filename_or_obj": str(file)})
        items.append({"image": image, **{name: values[number] for name, values in entries.items()}})
    loader = DataLoader(Dataset(items), batch_size=2)
    writer = InstanceWriter(folder / "out", RGBImageReader(), network)
    SupervisedEvaluator("cpu", loader, network, val_handlers=[writer]).run()
    return folder / "out"


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An image with two cells whose file tells the size of a pixel, and one without a cell."""
    return write(tmp_path, Finder([FOUND, NOTHING]), [tmp_path / "a.tif", tmp_path / "b.png"], group=["p", "q"])


def test_the_label_map_has_the_numbers_of_the_table(out: Path) -> None:
    labels = tifffile.imread(out / "label_maps" / "a.tif")
    assert labels.dtype == np.uint16
    assert labels.shape == SIZE
    cells = rows(out / "per_cell.csv")
    assert [(row["image"], row["cell"]) for row in cells] == [("a.tif", "1"), ("a.tif", "2")]
    for row in cells:
        assert (labels == int(row["cell"])).sum() == int(row["area_px"]) == 200
    assert [float(row["score"]) for row in cells] == pytest.approx([0.9, 0.8])
    assert tifffile.imread(out / "label_maps" / "b.tif").max() == 0


def test_areas_and_centroids_are_in_px_and_in_micrometers(out: Path) -> None:
    first, second = rows(out / "per_cell.csv")
    assert (float(first["centroid_x_px"]), float(first["centroid_y_px"])) == (10, 15)
    # A pixel is 1 um high and 0.5 um wide.
    assert float(second["area_um2"]) == pytest.approx(200 * 0.5)
    assert float(second["centroid_x_um"]) == pytest.approx(40 * 0.5)
    assert float(second["centroid_y_um"]) == pytest.approx(15)
    a, b = rows(out / "per_image.csv")
    assert (a["cells"], b["cells"]) == ("2", "0")
    assert float(a["covered_share"]) == pytest.approx(400 / 2400, abs=1e-6)
    assert (a["pixel_height_um"], a["pixel_width_um"]) == ("1.0", "0.5")
    assert (b["pixel_height_um"], b["pixel_width_um"]) == ("", "")
    assert [row["patient"] for row in (a, b)] == ["0", "1"]


def test_all_detections_are_listed_with_their_scores(out: Path) -> None:
    listed = read_coco(out / "detections.json")
    assert [image["file_name"] for image in listed.images.values()] == ["a.tif", "b.png"]
    assert listed.annotations[2] == []
    found = listed.annotations[1]
    assert [annotation["score"] for annotation in found] == pytest.approx([0.9, 0.8, 0.7, 0.3])
    for annotation, (x1, y1, x2, y2) in zip(found, BOXES, strict=True):
        assert annotation["bbox"] == [x1, y1, x2 - x1, y2 - y1]
        assert decode_mask(annotation["segmentation"]).sum() == (x2 - x1) * (y2 - y1) == annotation["area"]


def test_an_item_keeps_the_id_of_its_image(tmp_path: Path) -> None:
    out = write(tmp_path, Finder([NOTHING, FOUND]), [tmp_path / "a.png", tmp_path / "b.png"], image_id=[17, 4])
    assert list(read_coco(out / "detections.json").images) == [17, 4]
    assert len(read_coco(out / "detections.json").annotations[4]) == 4


def test_outlines_go_along_the_edges_of_the_pixels(out: Path) -> None:
    content = json.loads((out / "geojson" / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    first = content["features"][0]
    assert first["properties"]["objectType"] == "detection"
    assert first["properties"]["measurements"] == {"Area px^2": 200, "Area µm^2": 100.0, "Score": pytest.approx(0.9)}
    ring = np.array(first["geometry"]["coordinates"][0])
    assert (ring[0] == ring[-1]).all()
    assert [*ring.min(axis=0), *ring.max(axis=0)] == BOXES[0]
    assert area(ring) == 200
    assert json.loads((out / "geojson" / "b.geojson").read_text())["features"] == []
    assert len({feature["id"] for feature in content["features"]}) == 2


def area(ring: np.ndarray) -> float:
    x, y = ring[:-1].T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


def test_a_cell_in_two_parts_is_one_feature_and_a_disc_keeps_its_area() -> None:
    rows_, columns = np.mgrid[:60, :60]
    labels = np.zeros((60, 60), dtype=np.int32)
    labels[(rows_ - 20) ** 2 + (columns - 20) ** 2 <= 12**2] = 3
    labels[50:55, 5:10] = labels[50:55, 30:35] = 8
    cells = list(measure_cells(labels, {3: 1.0, 8: 1.0}, None))
    disc, parts = as_geojson(labels, cells, "a")["features"]
    assert [disc["properties"]["name"], parts["properties"]["name"]] == ["3", "8"]
    assert area(np.array(disc["geometry"]["coordinates"][0])) == (labels == 3).sum()
    assert parts["geometry"]["type"] == "MultiPolygon"
    assert len(parts["geometry"]["coordinates"]) == 2
    assert "Area µm^2" not in parts["properties"]["measurements"]


def test_the_overlay_has_an_outline_inside_each_cell_and_the_image_stays() -> None:
    image, labels = np.full((20, 20, 3), 9, dtype=np.uint8), np.zeros((20, 20), dtype=np.int32)
    labels[2:10, 2:10], labels[2:10, 10:18] = 1, 2
    picture = draw_cells(image, labels)
    assert (image == 9).all()
    assert (picture[5, 2] != 9).any()
    assert (picture[5, 5] == 9).all()
    assert (picture[5, 1] == 9).all()
    labels[labels == 2] = 1 + len(CELLS)  # cells take the colours in turn
    picture = draw_cells(image, labels)
    assert (picture[5, 9] != picture[5, 10]).any()


def test_files_of_the_same_name_do_not_replace_each_other(tmp_path: Path) -> None:
    out = write(tmp_path, Finder([FOUND, NOTHING]), [tmp_path / "p1" / "a.png", tmp_path / "p2" / "a.png"])
    assert sorted(path.name for path in (out / "label_maps").iterdir()) == ["p1_a.tif", "p2_a.tif"]
    assert [row["image"] for row in rows(out / "per_image.csv")] == ["p1/a.png", "p2/a.png"]


def test_a_network_that_only_labels_has_cells_of_score_1(tmp_path: Path) -> None:
    class Labels(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            labels = torch.zeros(len(images), 1, *SIZE, dtype=torch.int32)
            labels[:, :, 5:9, 5:9] = 70_000
            return labels

    out = write(tmp_path, Labels(), [tmp_path / "a.png"])
    assert tifffile.imread(out / "label_maps" / "a.tif").dtype == np.uint32
    (cell,) = rows(out / "per_cell.csv")
    assert (cell["cell"], cell["area_px"], cell["score"]) == ("70000", "16", "1.0")
    assert [a["score"] for a in read_coco(out / "detections.json").annotations[1]] == [1]


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (torch.zeros(1, 20, 30, dtype=torch.int32), r"a\.png: the image has 60x40 px and its label map 30x20"),
        (torch.ones(1, *SIZE), r"a\.png: its label map is of type float32, expected whole numbers"),
    ],
    ids=["size", "type"],
)
def test_a_map_that_does_not_fit_is_refused_by_name(labels: torch.Tensor, fault: str, tmp_path: Path) -> None:
    class Labels(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return labels.expand(len(images), *labels.shape)

    with pytest.raises(ValueError, match=fault):
        write(tmp_path, Labels(), [tmp_path / "a.png"])
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == [".run.json"]


def test_thousands_of_cells_are_measured_and_drawn_in_seconds() -> None:
    labels = np.kron(np.arange(2500, dtype=np.int32).reshape(50, 50), np.ones((20, 20), dtype=np.int32))
    start = time.perf_counter()
    cells = list(measure_cells(labels, dict.fromkeys(range(2500), 0.5), (1, 1)))
    content = as_geojson(labels, cells, "a")
    assert len(cells) == len(content["features"]) == 2499
    assert time.perf_counter() - start < 15


def test_an_image_that_could_not_be_read_has_its_reason_in_the_table_and_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    out = write(tmp_path, Finder([FOUND, FOUND]), files, failure=["", f"{tmp_path}/b.png: no image"])
    assert [(row["cells"], row["failure"]) for row in rows(out / "per_image.csv")] == [
        ("2", ""),
        ("", "b.png: no image"),
    ]
    assert [path.name for path in (out / "label_maps").iterdir()] == ["a.tif"]
    assert len(read_coco(out / "detections.json").images) == 1
    assert "2 in, 1 used, 1 left out: per_image.csv says why.\n" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"0 of 1 images could be read: .*the first: b\.png: no image"):
        write(tmp_path / "bad", Finder([FOUND]), files[1:], failure=[f"{tmp_path}/b.png: no image"])
    assert [row["failure"] for row in rows(tmp_path / "bad" / "out" / "per_image.csv")] == ["b.png: no image"]
