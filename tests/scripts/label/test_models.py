"""Bundles as a server uses them: what they make of an image, and with which weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.engines.outputs.colors import CELLS, PREDICTION, class_colors
from clinbundles.scripts.bundle import ROOT
from clinbundles.scripts.label.models import ServedBundle, annotation_of, open_bundles

BUNDLES = ROOT / "bundles"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/inference.json"))


@pytest.fixture
def ct(tmp_path: Path) -> ServedBundle:
    """The quickest bundle, as a copy."""
    shutil.copytree(BUNDLES / "ct_datasetgan", tmp_path / "ct_datasetgan")
    return ServedBundle(tmp_path / "ct_datasetgan")


def test_every_bundle_can_be_served_and_no_name_of_a_mask_stands_for_0() -> None:
    bundles = open_bundles([BUNDLES / name for name in NAMES])
    assert len(bundles) >= 5
    for name, bundle in bundles.items():
        assert bundle.labels, name
        assert bundle.kind == "classes" or 0 not in bundle.labels.values(), name
        assert bundle.label_colors.keys() == (set() if bundle.kind == "classes" else bundle.labels.keys()), name


def test_names_of_a_mask_have_the_colours_of_the_overlay(ct: ServedBundle) -> None:
    assert list(ct.label_colors.values()) == [list(color) for color in class_colors(3)]
    assert ServedBundle(BUNDLES / "gaze_polyp_segmentation").label_colors == {"polyp": list(PREDICTION)}
    assert ServedBundle(BUNDLES / "pace_cell_segmentation").label_colors == {"cell": list(CELLS[0])}
    ct.class_names = [str(k) for k in range(11)]
    assert len({tuple(color) for color in ct.label_colors.values()}) == 10


def test_a_mask_has_the_rows_and_columns_of_its_image(tmp_path: Path) -> None:
    frame = next((BUNDLES / "gaze_polyp_segmentation/samples").rglob("*.jpg"))
    with Image.open(frame) as picture:
        width, height = picture.size
    assert width != height
    result = ServedBundle(BUNDLES / "gaze_polyp_segmentation").infer(frame)
    assert result.pixels is not None
    assert result.pixels.shape == (height, width)
    assert result.pixels.dtype == np.uint8
    assert 0 < result.uncertainty < 1


def test_the_newest_weights_are_taken_and_what_only_goes_on_is_none(ct: ServedBundle) -> None:
    image = next((ct.folder / "samples/images").glob("*.png"))
    before = ct.infer(image).pixels
    weights = torch.load(ct.folder / "models/model.pt", weights_only=True)
    (ct.folder / "models/resume.ckpt").write_bytes(b"")
    (ct.folder / "models/last.pt").write_bytes(b"")
    assert ct.weights_names() == ["model.pt"]
    last = "final_conv.bias"
    weights[last] = torch.tensor([0.0, 0, 0, 1e6])  # everything is right lung
    torch.save(weights, ct.folder / "models/trained.pt")
    assert ct.weights_names() == ["trained.pt", "model.pt"]
    pixels = ct.infer(image).pixels
    assert pixels is not None
    assert set(np.unique(pixels)) == {3}
    np.testing.assert_array_equal(ct.infer(image, "model.pt").pixels, before)
    with pytest.raises(ValueError, match=r"no weights 'last\.pt': there are trained\.pt, model\.pt"):
        ct.infer(image, "last.pt")


def test_weights_that_differ_make_a_label_map_uncertain(ct: ServedBundle) -> None:
    image = next((ct.folder / "samples/images").glob("*.png"))
    shutil.copy(ct.folder / "models/model.pt", ct.folder / "models/trained.pt")
    assert ct.uncertainty(image) == pytest.approx(0, abs=1e-5)
    weights = torch.load(ct.folder / "models/model.pt", weights_only=True)
    weights["final_conv.bias"] = torch.tensor([0.0, 0, 0, 1e6])
    torch.save(weights, ct.folder / "models/trained.pt")
    assert ct.uncertainty(image) > 0.3


def test_results_that_no_server_shows_are_refused(ct: ServedBundle) -> None:
    path = ct.folder / "configs/inference.json"
    config = json.loads(path.read_text())
    config["writer"]["_target_"] = "somewhere.TextWriter"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="ct_datasetgan: its results are written by TextWriter, which is not served"):
        ServedBundle(ct.folder)


def test_an_annotation_has_the_outer_ring_of_each_part_of_a_cell() -> None:
    ring, hole = [[0, 0], [4, 0], [4, 4], [0, 0]], [[1, 1], [2, 1], [2, 2], [1, 1]]
    shapes = [
        {"type": "Polygon", "coordinates": [ring, hole]},
        {"type": "MultiPolygon", "coordinates": [[ring], [hole]]},
    ]
    annotation = annotation_of({"features": [{"geometry": shape} for shape in shapes]})
    assert annotation["elements"] == [{"label": "cell", "contours": [ring, ring, hole]}]
    assert annotation["labels"] == {"cell": list(CELLS[0])}
