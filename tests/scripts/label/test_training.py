"""Trainings of served bundles: what they learn from, what they start from, and where their weights go."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.engines.weights_card import read_card
from clinbundles.scripts.bundle import ROOT
from clinbundles.scripts.label.models import ServedBundle
from clinbundles.scripts.label.training import (
    datalist_of,
    list_items,
    options_of_request,
    read_class,
    start_from,
    train,
)
from clinbundles.transforms.points import LoadInstancesd
from clinbundles.transforms.readers.coco import instances_of

BUNDLES = ROOT / "bundles"
CLASSES = ["normal", "bacterial", "covid19"]


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], ServedBundle]:
    """A bundle by its name, as a copy that may be trained."""

    def copy(name: str) -> ServedBundle:
        shutil.copytree(BUNDLES / name, tmp_path / "served" / name)
        return ServedBundle(tmp_path / "served" / name)

    return copy


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A folder for images."""
    (tmp_path / "studies").mkdir()
    return tmp_path / "studies"


def sample_pairs(name: str, studies: Path, *, n: int) -> list[tuple[str, str]]:
    """Copy labelled samples of a bundle, and give their paths."""
    samples = BUNDLES / name / "samples"
    pairs = []
    for item in json.loads((samples / "datalist.json").read_text())["training"][:n]:
        for key in ("image", "label"):
            shutil.copy(samples / item[key], studies / f"{key}_{Path(item[key]).name}")
        pairs.append(tuple(str(studies / f"{key}_{Path(item[key]).name}") for key in ("image", "label")))
    return pairs


def hashed(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_epoch_puts_weights_beside_the_shipped_ones_which_stay(
    copied: Callable[[str], ServedBundle], studies: Path
) -> None:
    bundle = copied("ct_datasetgan")
    shipped = bundle.folder / "models" / "model.pt"
    before = hashed(shipped), hashed(shipped.with_suffix(".json"))
    pairs = sample_pairs("ct_datasetgan", studies, n=3)
    weights = train(bundle, pairs, studies, {"max_epochs": 1, "steps_per_epoch": 1, "learning_rate": 1e-9})
    assert (hashed(shipped), hashed(shipped.with_suffix(".json"))) == before
    assert weights == shipped.with_name("trained.pt")
    assert read_card(weights)
    assert bundle.weights_names() == ["trained.pt", "model.pt"]
    assert not (bundle.folder / "models" / "resume.ckpt").exists()
    # One tiny step from the shipped weights is next to them; from random ones it would be far.
    states = [torch.load(path, weights_only=True) for path in (weights, shipped)]
    name = "final_conv.weight"
    torch.testing.assert_close(states[0][name], states[1][name].float(), atol=1e-4, rtol=0)


def test_weights_that_the_inference_does_not_take_are_not_offered(
    copied: Callable[[str], ServedBundle], studies: Path
) -> None:
    bundle = copied("ct_datasetgan")
    pairs = sample_pairs("ct_datasetgan", studies, n=2)
    request = {"max_epochs": 1, "steps_per_epoch": 1, "channels": [8, 8, 8, 8, 8, 8], "pretrained": False}
    with pytest.raises(ValueError, match=r"run/model\.pt"):
        train(bundle, pairs, studies, request)
    assert bundle.weights_names() == ["model.pt"]


def test_a_network_that_learns_by_gaze_learns_without_where_there_is_none(
    copied: Callable[[str], ServedBundle], studies: Path
) -> None:
    name = "gaze_polyp_segmentation"
    bundle, pairs = copied(name), sample_pairs(name, studies, n=3)
    words = {"max_epochs": 1, "network_name": "UNet", "batch_size": 1, "num_workers": 0}
    with pytest.raises(ValueError, match="image_size is 32, and this server applies gaze_polyp_segmentation with 128"):
        train(bundle, pairs, studies, {**words, "image_size": 32})
    assert not (bundle.folder / "training" / "run").exists()
    card = read_card(train(bundle, pairs, studies, words))
    assert "original" in card["options"]["arm"]
    lines = [f"{Path(image).name},0.5,0.5,200" for image, _ in pairs]
    (studies / "gaze.csv").write_text("\n".join(["IMAGE,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION", *lines]))
    card = read_card(train(bundle, pairs, studies, words))
    assert "positive" in card["options"]["arm"]


def test_cells_are_learned_from_their_label_maps_and_from_points_where_there_are_some(
    copied: Callable[[str], ServedBundle], studies: Path
) -> None:
    bundle = copied("pace_cell_segmentation")
    labels = np.zeros((2, 12, 16), dtype=np.uint16)
    labels[0, 2:5, 3:9] = 1
    labels[0, 8:10, 1:3] = 300
    labels[1, 4:6, 4:6] = 2
    pairs = []
    for number, each in enumerate(labels):
        Image.fromarray(each).save(studies / f"label_{number}.png")
        Image.fromarray(np.zeros((12, 16), dtype=np.uint8)).save(studies / f"image_{number}.png")
        pairs.append((str(studies / f"image_{number}.png"), str(studies / f"label_{number}.png")))
    items = {Path(item["image"]).name: item for item in list_items(bundle, pairs, studies, studies)}
    cells = instances_of(items["image_0.png"])
    np.testing.assert_array_equal(cells.boxes, [[3, 2, 9, 5], [1, 8, 3, 10]])
    assert len(instances_of(items["image_1.png"]).boxes) == 1
    entries = [{"id": n, "file_name": f"image_{n}.png", "height": 12, "width": 16} for n in (0, 1)]
    point = {"bbox": [3, 2, 6, 3], "point_coords": [[4, 3]], "point_labels": [1], "category_id": 1}
    annotations = [{"id": n, "image_id": n, **point} for n in (0, 1)]
    (studies / "points.json").write_text(json.dumps({"images": entries, "annotations": annotations}))
    for item in list_items(bundle, [], studies, studies):
        loaded = LoadInstancesd()({"label": item["label"], "image_id": item["image_id"]})
        assert loaded["points"].tolist() == [[[4.5, 3.5]]]


@pytest.mark.parametrize(
    "content",
    [{"label": "bacterial"}, {"prediction": [{"label": "normal", "score": 0.1}, {"label": "bacterial", "score": 0.9}]}],
)
def test_a_class_is_that_of_its_label_or_of_the_likeliest_in_a_prediction(
    content: dict, copied: Callable[[str], ServedBundle], studies: Path
) -> None:
    bundle = copied("covid_xray_transfer")
    (studies / "label.json").write_text(json.dumps(content))
    items = list_items(bundle, [(f"{name}.png", str(studies / "label.json")) for name in "ab"], studies, studies)
    assert [item["label"] for item in items] == [1, 1]
    datalist = datalist_of(bundle, items, n_validation=1)
    assert list(datalist["labels"].values()) == CLASSES
    assert (len(datalist["training"]), len(datalist["validation"])) == (1, 1)


def test_a_label_corrected_by_hand_wins_over_the_prediction_kept_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "label.json"
    kept = {"prediction": [{"label": "normal", "score": 0.9}]}
    path.write_text(json.dumps({"label": "covid19"} | kept))
    assert read_class(path, CLASSES) == CLASSES.index("covid19")
    path.write_text(json.dumps({"label": "lion"} | kept))
    with pytest.raises(ValueError, match="'lion' is no class"):
        read_class(path, CLASSES)
    path.write_text(json.dumps({"label": None} | kept))
    assert read_class(path, CLASSES) == CLASSES.index("normal")


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"prediction": []}', '{"label": "lion"}'])
def test_a_label_that_names_no_class_is_refused(
    content: str, copied: Callable[[str], ServedBundle], studies: Path
) -> None:
    (studies / "label.json").write_text(content)
    with pytest.raises(ValueError, match=r"label\.json: (is no label of a class|'lion' is no class)"):
        list_items(copied("covid_xray_transfer"), [("a.png", str(studies / "label.json"))] * 2, studies, studies)


def test_one_labelled_image_is_too_few(copied: Callable[[str], ServedBundle], studies: Path) -> None:
    with pytest.raises(ValueError, match="1 images are labelled: a training needs 2 or more"):
        train(copied("ct_datasetgan"), sample_pairs("ct_datasetgan", studies, n=1), studies, {})


def test_a_request_sets_plain_values_and_neither_code_nor_paths(copied: Callable[[str], ServedBundle]) -> None:
    bundle = copied("ct_datasetgan")
    request = {"model": "x", "max_epochs": 3, "ckpt_dir": "/elsewhere", "device": "cuda", "run": ["$print(1)"]}
    assert options_of_request(bundle, request) == {"max_epochs": 3}
    with pytest.raises(ValueError, match=r"learning_rate: '\$print\(1\)' would run code"):
        options_of_request(bundle, {"learning_rate": "$print(1)"})


def test_weights_of_any_bundle_are_loaded_right_before_it_trains(copied: Callable[[str], ServedBundle]) -> None:
    for name in sorted(path.name for path in BUNDLES.iterdir()):
        *before, load, last = start_from(copied(name))["run"]
        assert load.startswith("$load_weights(@network, ")
        assert last == "$@train#trainer.run()"
        assert "$@start_weights" not in before
