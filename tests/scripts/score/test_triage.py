"""Tests of the triage of generated pairs: planted errors come out as what they are, and a judge is always named."""

import csv
import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts import cli
from clinbundles.scripts.score.triage import area, summarize, verdict_of
from clinbundles.scripts.score.triage_report import median_pair
from clinbundles.transforms.hu_labels import label_slice
from clinbundles.transforms.readers.ct_volume import to_hu

SIDE, N_PAIRS = 64, 20
NAMES = ["background", "body", "left lung", "right lung"]
N_BAD, N_PARTIAL = 3, 5


def chest() -> np.ndarray:
    """Grey values (H, W) of -1000 to 600 HU: an ellipse of tissue with two of air."""
    y, x = np.mgrid[:SIDE, :SIDE]
    hu = np.where(((y - 32) / 20) ** 2 + ((x - 32) / 28) ** 2 < 1, 40.0, -1000.0)
    hu[sum((((y - 32) / 11) ** 2 + ((x - middle) / 8) ** 2 < 1) for middle in (20, 44)) > 0] = -850
    return ((hu + 1000) / 1600 * 255).astype(np.uint8)


def spoil(labels: np.ndarray, n_rows: int) -> np.ndarray:
    """Make all pixels of the first rows wrong."""
    wrong = labels.copy()
    wrong[:n_rows] = (wrong[:n_rows] + 1) % len(NAMES)
    return wrong


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def change(folder: Path, **facts: Any) -> dict[str, Any]:
    """Change what the datalist says; None takes it out."""
    content = json.loads((folder / "datalist.json").read_text()) | facts
    content = {name: fact for name, fact in content.items() if fact is not None}
    (folder / "datalist.json").write_text(json.dumps(content))
    return content


@pytest.fixture
def truth() -> np.ndarray:
    """The label map that belongs to every image."""
    return label_slice(to_hu(chest(), (-1000, 600)))


@pytest.fixture
def folder(tmp_path: Path, truth: np.ndarray) -> Path:
    """A set of the same chest: 3 label maps with half of the rows wrong, 5 with a tenth, 12 right; in its own order."""
    made = tmp_path / "made"
    items = []
    for number in range(N_PAIRS):
        n_rows = 32 if number < N_BAD else 6 if number < N_BAD + N_PARTIAL else 0
        save(chest(), made / f"images/{number:06}.png")
        save(spoil(truth, n_rows), made / f"labels/{number:06}.png")
        names = {kind: f"{kind}s/{number:06}.png" for kind in ("image", "label")}
        items.append({**names, "uncertainty": 0.3 - 0.01 * number})
    content = {"labels": {str(k): name for k, name in enumerate(NAMES)}, "window_hu": [-1000, 600]}
    content |= {"training": items[:15], "validation": items[15:], "dropped_as_uncertain": 2}
    (made / "datalist.json").write_text(json.dumps(content))
    return made


@pytest.fixture
def maps(tmp_path: Path, truth: np.ndarray) -> Path:
    """What the inference of a segmenter writes: it sees one row of background as body."""
    for number in range(N_PAIRS):
        labels = truth.copy()
        labels[-1] = 1
        save(labels, tmp_path / f"judge/label_maps/{number:06}.png")
    (tmp_path / "judge" / "per_image.csv").write_text(",".join(["image", *(f"share_{name}" for name in NAMES)]) + "\n")
    return tmp_path / "judge"


def run(folder: Path, *words: object) -> None:
    cli.main(["score", "triage", "--generated", str(folder), *map(str, words)])


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "triage.json").read_text())


def test_planted_errors_come_out_as_bad_and_partial_and_the_uncertainty_knows_them(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    run(folder, "--judge", "automatic")
    said = capsys.readouterr().out
    assert "judge: automatic (HU threshold); it takes the place of a reference" in said
    assert "22 pairs came in, 20 are judged, 2 are left out (as uncertain, by generate)" in said
    assert "| partial | 1% to 25% | 5 | 25.0% | 11.2% to 46.9% | 11% |" in said
    assert "AUROC of the uncertainty for bad pairs: 1.00 (3 such, 17 others)" in said
    assert "the most uncertain pairs were left out before" in said
    rows = list(csv.DictReader((folder / "triage" / "triage.csv").read_text().splitlines()))
    assert list(rows[0]) == ["image", "wrong_share", "verdict", "uncertainty"]
    assert [row["verdict"] for row in rows] == ["bad"] * 3 + ["partial"] * 5 + ["good"] * 12
    assert [float(rows[k]["wrong_share"]) for k in (0, 3, 8)] == [0.5, pytest.approx(6 / 64), 0]
    content = summary_of(folder / "triage")
    assert [content["verdicts"][name]["count"] for name in ("good", "partial", "bad")] == [12, 5, 3]
    assert [content["verdicts"][name]["paper"] for name in ("good", "partial", "bad")] == [0.74, 0.11, 0.15]
    assert content["judge"] == {"name": "automatic (HU threshold)", "window_hu": [-1000, 600]}
    assert [each["bad"] for each in content["deciles"]] == [0] * 8 + [1, 2]
    assert (content["deciles"][0]["from"], content["deciles"][9]["to"]) == (pytest.approx(0.11), 0.3)
    with Image.open(folder / "triage" / "triage.png") as picture:
        assert picture.width > 1000


def test_a_segmenter_judges_by_the_label_maps_of_its_inference_and_is_named(
    folder: Path, maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    run(folder, "--judge", maps, "--judge_weights", tmp_path / "model.pt", "--output_dir", tmp_path / "out")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert f"judge: segmenter, label maps of judge, weights sha256 {digest[:12]}" in capsys.readouterr().out
    content = summary_of(tmp_path / "out")
    assert content["judge"]["weights_sha256"] == digest
    assert [content["verdicts"][name]["count"] for name in ("good", "partial", "bad")] == [0, 17, 3]
    assert content["auroc"]["not good"]["value"] is None
    assert "all pairs are not good, so that there is no AUROC for it" in content["remarks"]
    assert not (folder / "triage").exists()
    run(folder, "--judge", maps / "label_maps")
    assert "weights not named" in capsys.readouterr().out


def test_colour_images_of_other_classes_are_judged_by_a_segmenter_and_no_bad_one_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    items = []
    for number in range(4):
        disc = np.hypot(*(np.mgrid[:16, :16] - 8)) < 4 + number
        save(np.stack([disc * 200, disc * 90, ~disc * 120], axis=-1).astype(np.uint8), tmp_path / f"{number}.png")
        for name in ("labels", "judge"):
            save(disc.astype(np.uint8), tmp_path / name / f"{number}.png")
        items.append({"image": f"{number}.png", "label": f"labels/{number}.png", "uncertainty": 0.1})
    content = {"labels": {"0": "background", "1": "nucleus"}, "training": items}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    run(tmp_path, "--judge", tmp_path / "judge")
    said = capsys.readouterr().out
    assert "| bad | 25% or more | 0 | 0.0% | 0.0% to 49.0% | 15% |" in said
    assert "no pair is bad, so that there is no AUROC for it" in said
    assert "4 pairs are too few for deciles of uncertainty" in said
    content = summary_of(tmp_path / "triage")
    assert content["auroc"]["bad"] == {"value": None, "low": None, "high": None, "pairs": 0, "others": 4}
    assert content["deciles"] is None


def test_the_window_may_be_said_where_the_list_does_not_or_as_it_does(folder: Path) -> None:
    run(folder, "--judge", "automatic", "--window_hu", "-1000,600")
    first = summary_of(folder / "triage")
    change(folder, window_hu=None)
    run(folder, "--judge", "automatic", "--window_hu", "-1000,600")
    assert summary_of(folder / "triage") == first


def test_the_bounds_belong_to_good_and_to_bad() -> None:
    shares = (0, 0.01, 0.0101, 0.2499, 0.25, 1)
    assert [verdict_of(share) for share in shares] == ["good", "good", "partial", "partial", "bad", "bad"]


def test_an_uncertainty_that_knows_nothing_has_an_area_of_a_half_within_its_interval() -> None:
    generator = np.random.default_rng(0)
    uncertainty, bad = generator.random(400), generator.random(400) < 0.2
    blind, knowing = area(uncertainty, bad), area(uncertainty + bad * 0.3, bad)
    assert blind["low"] < 0.5 < blind["high"]
    assert knowing["low"] > 0.5
    assert blind["pairs"] + blind["others"] == 400
    assert area(np.ones(400), bad)["value"] == 0.5
    perfect = area(bad.astype(float), bad)
    assert (perfect["value"], perfect["high"], perfect["low"] < 0.99) == (1, 1, True)
    assert area(-uncertainty, bad)["value"] == pytest.approx(1 - blind["value"], abs=1e-4)


def test_every_pair_is_in_one_decile_whatever_the_number() -> None:
    rows = [{"verdict": "good" if k % 3 else "bad", "uncertainty": (k * 7) % 23} for k in range(23)]
    deciles = summarize(rows)["deciles"]
    assert [each["pairs"] for each in deciles] == [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]
    assert sum(each["bad"] for each in deciles) == 8
    assert all(first["to"] < second["from"] for first, second in pairwise(deciles))


def test_the_pair_that_is_shown_has_the_median_share() -> None:
    shares = [0.5, 0.3, 0.9, 0.4, 0.0]
    rows = [{"image": f"{k}.png", "verdict": verdict_of(share), "wrong_share": share} for k, share in enumerate(shares)]
    assert median_pair(rows, "bad") == (3, rows[3])
    assert median_pair(rows, "partial") is None


def no_uncertainty(folder: Path) -> None:
    items = change(folder)["training"]
    del items[2]["uncertainty"]
    change(folder, training=items)


def no_label(folder: Path) -> None:
    change(folder, training=[{"image": "images/000000.png"}])


@pytest.mark.parametrize(
    ("break_it", "words", "message"),
    [
        (no_uncertainty, (), "images/000002.png has the uncertainty None, expected a number: generate writes it"),
        (no_label, (), "images/000000.png has no label: generate it with interpreter_weights"),
        (lambda folder: change(folder, labels=None), (), "its labels are None, expected the names of the classes"),
        (
            lambda folder: change(folder, labels={"0": "background", "1": "nucleus"}),
            (),
            "its classes are background, nucleus, and the automatic judge is of chest CT and knows background, body",
        ),
        (lambda folder: change(folder, window_hu=None), (), "says no window_hu: give the one that"),
        (lambda folder: None, ("--window_hu", "-1000,400"), r"window_hu is \[-1000, 600\], and --window_hu is \[-1000"),
        (lambda folder: None, ("--window_hu", "wide"), "--window_hu is wide: expected two numbers that rise"),
        (lambda folder: None, ("--judge_weights", "model.pt"), "--judge_weights is of a segmenter"),
        (
            lambda folder: save(np.zeros((32, 64), np.uint8), folder / "labels/000004.png"),
            (),
            r"labels/000004.png: is 64x32 px, its image 64x64 px",
        ),
        (
            lambda folder: save(np.zeros((32, 64), np.uint8), folder / "images/000004.png"),
            (),
            r"images/000004.png: 64x32 px and 1 channel, expected 64x64 px",
        ),
    ],
)
def test_sets_that_cannot_be_judged_are_refused_in_a_sentence_and_nothing_is_written(
    folder: Path, break_it: Callable[[Path], object], words: tuple[str, ...], message: str
) -> None:
    break_it(folder)
    with pytest.raises(SystemExit, match=message):
        run(folder, "--judge", "automatic", *words)
    assert not (folder / "triage").exists()


@pytest.mark.parametrize(
    ("break_it", "words", "message"),
    [
        (
            lambda maps: (maps / "label_maps/000007.png").unlink(),
            (),
            "1 of 20 images have no label map there, the first is images/000007.png; expected 000007.png",
        ),
        (
            lambda maps: save(np.zeros((64, 32), np.uint8), maps / "label_maps/000007.png"),
            (),
            "the judge's label map of images/000007.png: is 32x64 px, its image 64x64 px",
        ),
        (
            lambda maps: save(np.full((64, 64), 9, np.uint8), maps / "label_maps/000007.png"),
            (),
            "000007.png: holds the value 9, and there are 4 classes",
        ),
        (
            lambda maps: (maps / "per_image.csv").write_text("image,share_background,share_lung\n"),
            (),
            "per_image.csv: is of the classes background, lung, and the set has background, body",
        ),
        (lambda maps: None, ("--window_hu", "-1000,600"), "--window_hu is of --judge automatic"),
        (lambda maps: None, ("--judge_weights", "none.pt"), "none.pt: no such file; --judge_weights are those"),
    ],
)
def test_label_maps_that_judge_another_set_are_refused(
    folder: Path, maps: Path, break_it: Callable[[Path], object], words: tuple[str, ...], message: str
) -> None:
    break_it(maps)
    with pytest.raises(SystemExit, match=message):
        run(folder, "--judge", maps, *words)
    assert not (folder / "triage").exists()


def test_no_set_judges_itself_and_a_judge_is_there(folder: Path) -> None:
    with pytest.raises(SystemExit, match="labels: holds the label maps of the set itself, which judge nothing"):
        run(folder, "--judge", folder / "labels")
    with pytest.raises(SystemExit, match="nowhere: no such folder; --judge is automatic or a folder of label maps"):
        run(folder, "--judge", folder / "nowhere")
