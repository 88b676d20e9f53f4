"""What every bundle answers to a wrong list or option: one sentence that names it, before anything is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clinbundles.engines.sentences import sentence_of
from clinbundles.scripts.bundle import options_for, run_configs

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/train.json"))
COVID, POLYPS, SLICES = (
    ROOT / "bundles" / name for name in ("covid_xray_transfer", "gaze_polyp_segmentation", "ct_datasetgan")
)


def refusal(bundle: Path, name: str, tmp_path: Path, **options: Any) -> str | None:
    """The sentence that a run ends with, which has written nothing."""
    if name == "train" and bundle.name == "two_stage_segmentation":
        name = "train_coarse"  # which needs no other weights
    plan = json.loads((bundle / "configs" / "reproduce.json").read_text())
    knobs = {} if name in ("evaluate", "inference") else plan["scales"]["smoke"]
    knobs |= {"arm": "original"} if bundle == POLYPS else {}
    places = {"output_dir": str(tmp_path / "out"), "ckpt_dir": str(tmp_path / "out")}
    known = options_for(bundle, [name], {**knobs, "cache_rate": 0.0, "initial_weights": None, **places, **options})
    before = sorted(tmp_path.iterdir())
    with pytest.raises((RuntimeError, ValueError)) as caught:
        run_configs(bundle, [name], **known)
    assert sorted(tmp_path.iterdir()) == before
    return sentence_of(caught.value)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Path, dict[str, Any]], str]:
    """Writes the list of a bundle's samples with some of its splits replaced."""

    def written(bundle: Path, splits: dict[str, Any]) -> str:
        content = json.loads((bundle / "samples" / "datalist.json").read_text())
        path = tmp_path / "list.json"
        path.write_text(json.dumps(content | splits))
        return str(path)

    return written


def samples(bundle: Path, split: str) -> list[dict[str, Any]]:
    return json.loads((bundle / "samples" / "datalist.json").read_text())[split]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
@pytest.mark.parametrize(("config", "split"), [("train", "training"), ("evaluate", "test")])
def test_an_item_without_a_label_is_named(
    bundle: Path, config: str, split: str, write: Callable, tmp_path: Path
) -> None:
    items = samples(bundle, split)
    items[1] = {"image": items[1]["image"]}
    path = write(bundle, {split: items})
    sentence = refusal(bundle, config, tmp_path, datalist=path)
    assert sentence is not None
    assert sentence.startswith(f"{path}: item 1 of its split {split!r} has no label: expected ")


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
def test_a_split_that_is_no_list_is_named(bundle: Path, write: Callable, tmp_path: Path) -> None:
    path = write(bundle, {"training": 5})
    sentence = refusal(bundle, "train", tmp_path, datalist=path)
    assert sentence == f"{path}: its split 'training' is 5, expected a list of items."


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
@pytest.mark.parametrize("other", ["validation", "test"])
def test_images_that_are_trained_on_and_held_out_are_refused(
    bundle: Path, other: str, write: Callable, tmp_path: Path
) -> None:
    path = write(bundle, {other: samples(bundle, "training")})
    sentence = refusal(bundle, "train", tmp_path, datalist=path)
    assert sentence is not None
    assert sentence.startswith(f"{path}: item 0 of its split 'training' and item 0 of {other!r} are ")
    assert "one image" in sentence


def test_a_label_that_is_no_class_of_the_network_is_named(write: Callable, tmp_path: Path) -> None:
    items = samples(COVID, "training")
    items[3]["label"] = 7
    sentence = refusal(COVID, "train", tmp_path, datalist=write(COVID, {"training": items}))
    assert sentence is not None
    assert "item 3 of its split 'training' has the label 7: expected 0 to 2, for normal, bacterial, cov" in sentence


@pytest.mark.parametrize(
    ("bundle", "name", "options", "start"),
    [
        (POLYPS, "train", {"arm": "foo"}, "--arm is 'foo', expected one of original, positive, reverse."),
        (POLYPS, "inference", {"arm": "foo"}, "--arm is 'foo', expected one of original, positive, reverse."),
        (POLYPS, "inference", {"blur_at": "foo"}, "--blur_at is 'foo', expected one of train, all."),
        (SLICES, "train", {"augmentation": "foo"}, "--augmentation is 'foo', expected one of none, strong."),
        (COVID, "inference", {"image_size": 0}, "--image_size is 0, expected 1 or more."),
        (COVID, "inference", {"image_size": 10}, "image_size is 10: 4 halvings leave nothing of it."),
        (COVID, "inference", {"intensity_mean": 1}, "--intensity_mean is 1, expected three numbers"),
        (COVID, "inference", {"device": "foo"}, "--device is 'foo', and this machine has cpu"),
        (COVID, "train", {"channels": [0]}, "--channels is [0], expected numbers of 1 or more."),
        (COVID, "train", {"phases": []}, "--phases is [], expected a list such as"),
    ],
)
def test_an_option_that_is_wrong_is_named_as_it_was_typed(
    bundle: Path, name: str, options: dict[str, Any], start: str, tmp_path: Path
) -> None:
    sentence = refusal(bundle, name, tmp_path, **options)
    assert sentence is not None
    assert sentence.startswith(start)
