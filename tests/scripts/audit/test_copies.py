import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from clinbundles.engines.metrics.copies import orient, smoothed
from clinbundles.engines.metrics.planted_copies import DEGRADATIONS, Degradation, plant
from clinbundles.scripts import cli
from clinbundles.scripts.audit import copies as audit
from clinbundles.scripts.audit.copies import judge
from clinbundles.scripts.audit.copies_report import similarity

SIDE = 32
N_PATIENTS, N_SLICES = 4, 8


def series(patient: int, count: int = N_SLICES) -> torch.Tensor:
    """Slices (count, 1, H, H) of a patient that change slowly from one to the next."""
    generator = torch.Generator().manual_seed(patient)
    ends = torch.rand(2, 1, 6, 6, generator=generator) * 2 - 1
    first, last = F.interpolate(ends, (SIDE, SIDE), mode="bicubic").clamp(-1, 1)
    return torch.stack([first.lerp(last, share) for share in torch.linspace(0, 1, count).tolist()])


def save(image: torch.Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(((image[0] + 1) * 127.5).round().byte().numpy()).save(path)


def write_list(folder: Path, splits: dict[str, list[dict[str, object]]]) -> Path:
    (folder / "datalist.json").write_text(json.dumps({"name": "made", **splits}))
    return folder / "datalist.json"


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    """Four patients to train on, and two that are held out."""
    splits: dict[str, list[dict[str, object]]] = {"training": [], "test": []}
    for patient in range(N_PATIENTS + 2):
        for number, image in enumerate(series(patient)):
            name = f"images/p{patient}_{number}.png"
            save(image, tmp_path / "real" / name)
            item: dict[str, object] = {"image": name, "group": f"p{patient}", "position": 5.0 * number}
            splits["training" if patient < N_PATIENTS else "test"].append(item)
    return write_list(tmp_path / "real", splits)


@pytest.fixture
def generate(tmp_path: Path) -> Callable[..., Path]:
    """Write a generated set: images of nobody, and behind them some that are given."""

    def write(copies: torch.Tensor | None = None, *, count: int = 12) -> Path:
        images = [series(100 + number, 1)[0] for number in range(count)]
        images += [] if copies is None else list(copies)
        items: list[dict[str, object]] = []
        for number, image in enumerate(images):
            save(image, tmp_path / "made" / f"images/{number:06}.png")
            items.append({"image": f"images/{number:06}.png", "label": f"labels/{number:06}.png", "seed": number})
        write_list(tmp_path / "made", {"training": items})
        return tmp_path / "made"

    return write


def run(*words: object) -> None:
    cli.main(["audit", "copies", *map(str, words)])


def test_copies_are_found_and_everything_else_is_not(
    datalist: Path, generate: Callable, capsys: pytest.CaptureFixture
) -> None:
    originals = torch.stack([series(0)[2], series(3)[5]])
    folder = generate(orient(originals, 3))
    content = json.loads((folder / "datalist.json").read_text())
    write_list(folder, {"training": content["training"][:13], "validation": content["training"][13:]})
    run("--generated", folder, "--training", datalist, "--drop_copies")
    said = capsys.readouterr().out
    assert "have to be found it finds 10 (noise 0.05), 10 (noise 0.1), 10 (noise 0.2), 10 (averaged over 3 px)" in said
    assert "copies by pixels: 2 of 14 (14.29% [4.01%, 39.94%]) generated images" in said
    assert "The gate of 1% is not passed: it lets no more than 1% through and it takes 1000 images." in said
    assert "false alarms: 0 of 16 (0.00% [0.00%, 65.76%]) held-out images, which decide nothing" in said
    rows = list(csv.DictReader((folder / "copies" / "copies.csv").read_text().splitlines()))
    assert [row["copy"] for row in rows] == ["False"] * 12 + ["True"] * 2
    assert [row["pixels_training"] for row in rows[12:]] == ["images/p0_2.png", "images/p3_5.png"]
    assert all(float(row["ssim"]) > 0.98 for row in rows[12:])
    assert all(float(row["ssim"]) < 0.9 for row in rows[:12])
    kept = json.loads((folder / "datalist_without_copies.json").read_text())
    assert kept == {"name": "made", "training": content["training"][:12], "validation": []}
    summary = json.loads((folder / "copies" / "summary.json").read_text())
    assert (summary["copies"], summary["share"]["value"], summary["passed"]) == (2, 0.1429, False)
    assert (summary["training"], summary["held_out"], summary["verdict_by"]) == (32, 16, "pixels")
    pixels = summary["distances"]["pixels"]
    assert "24 pairs of slices of one patient 10 to 20 mm apart" in pixels["meaning"]
    assert pixels["control"]["missed"] == []
    kinds = pixels["control"]["by_degradation"]
    assert all(each["found"] == 10 and each["auroc"] > 0.99 for each in kinds.values() if each["required"])
    assert kinds["noise 0.05"]["named"] == 10
    assert pixels["copies_among_held_out"]["copies"] == 0
    assert pixels["held_out"]["0"] > pixels["threshold"] > pixels["generated"]["0"]
    with Image.open(folder / "copies" / "copies.png") as picture:
        assert picture.width > 1000


def test_features_are_measured_beside_and_do_not_overrule_the_pixels(
    datalist: Path,
    generate: Callable,
    mobilenet_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "DEGRADATIONS", (DEGRADATIONS[0], DEGRADATIONS[-1]))
    folder = generate(series(1)[:1], count=3)
    content = json.loads(datalist.read_text())
    write_list(datalist.parent, {"training": content["training"][:12]})
    out = tmp_path / "out"
    words = ("--feature_weights", mobilenet_weights, "--output_dir", out)
    run("--generated", folder, "--training", datalist, *words)
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["distances"]) == ["pixels", "MobileNetV2"]
    assert (summary["verdict_by"], summary["held_out"], summary["copies"]) == ("pixels", 0, 1)
    rows = list(csv.DictReader((out / "copies.csv").read_text().splitlines()))
    assert rows[3]["MobileNetV2_training"] == "images/p1_0.png"
    assert float(rows[3]["MobileNetV2_distance"]) < float(rows[0]["MobileNetV2_distance"])
    assert not (folder / "datalist_without_copies.json").exists()


def test_a_generator_that_blurs_and_noises_what_it_has_by_heart_is_caught_every_time(
    datalist: Path, generate: Callable
) -> None:
    memory = smoothed(torch.cat([series(patient) for patient in range(N_PATIENTS)]), 1.0)
    noise = torch.randn(memory.shape, generator=torch.Generator().manual_seed(0))
    memory += 0.05 * memory.std((1, 2, 3), keepdim=True) * noise
    folder = generate(memory.clamp(-1, 1), count=1)
    run("--generated", folder, "--training", datalist)
    summary = json.loads((folder / "copies" / "summary.json").read_text())
    assert (summary["copies"], summary["generated"]) == (32, 33)
    assert "it lets no more than 1% through" in summary["reason"]


@pytest.mark.parametrize("kind", ["noise 0.05", "noise 0.2", "blur 1 px"])
def test_a_failed_control_ends_in_a_sentence_and_does_not_pass_the_gate(
    datalist: Path, generate: Callable, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def plant_a_stranger(training: torch.Tensor, degradation: Degradation, **options: int) -> object:
        copies, originals = plant(training, degradation, **options)
        return (torch.cat([copies[1:], series(50, 1)]) if degradation.words == kind else copies), originals

    folder = generate()
    (folder / "copies").mkdir()
    (folder / "copies" / "copies.csv").write_text("of an earlier audit")
    monkeypatch.setattr(audit, "plant", plant_a_stranger)
    sentence = (
        r"The gate of 1% is not passed: the control failed, so nothing is said of the generated images\. "
        rf"Of 10 planted copies each are found only: by pixels 9 \({kind}\)\. See .*summary\.json\."
    )
    with pytest.raises(SystemExit, match=sentence):
        run("--generated", folder, "--training", datalist)
    assert not (folder / "copies" / "copies.csv").exists()
    summary = json.loads((folder / "copies" / "summary.json").read_text())
    assert (summary["verdict_by"], summary["passed"]) == (None, False)
    assert "the control failed" in summary["reason"]


def test_copies_that_need_not_be_found_do_not_fail_the_control(
    datalist: Path, generate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plant_strangers(training: torch.Tensor, degradation: Degradation, **options: int) -> object:
        copies, originals = plant(training, degradation, **options)
        strangers = torch.cat([series(50 + k, 1) for k in range(10)])
        return (copies if degradation.required else strangers), originals

    monkeypatch.setattr(audit, "plant", plant_strangers)
    folder = generate()
    run("--generated", folder, "--training", datalist)
    summary = json.loads((folder / "copies" / "summary.json").read_text())
    assert summary["verdict_by"] == "pixels"
    assert summary["distances"]["pixels"]["control"]["by_degradation"]["turned 3 degrees"]["found"] == 0


def test_without_positions_the_nearest_of_other_groups_set_the_bar(datalist: Path, generate: Callable) -> None:
    content = json.loads(datalist.read_text())
    crops = [{"image": item["image"], "group": item["group"], "position": [0, 64]} for item in content["training"]]
    write_list(datalist.parent, {"training": crops})
    folder = generate(series(2)[4:5])
    run("--generated", folder, "--training", datalist)
    summary = json.loads((folder / "copies" / "summary.json").read_text())
    assert "half the 5 % quantile" in summary["distances"]["pixels"]["meaning"]
    assert summary["copies"] == 1


def test_images_of_another_size_are_refused_before_anything_is_written(datalist: Path, generate: Callable) -> None:
    folder = generate()
    for path in (folder / "images").iterdir():
        Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(path)
    with pytest.raises(SystemExit, match=r"000000\.png: 16x16 px and 1 channel, expected 32x32 px"):
        run("--generated", folder, "--training", datalist)
    assert not (folder / "copies").exists()


def test_too_few_training_images_for_the_control_are_refused(datalist: Path, generate: Callable) -> None:
    write_list(datalist.parent, {"training": json.loads(datalist.read_text())["training"][:10]})
    with pytest.raises(SystemExit, match="10 images in training, expected more than 10"):
        run("--generated", generate(), "--training", datalist)


@pytest.mark.parametrize(
    ("copies", "images", "passed", "high"),
    [(0, 1000, True, 0.0038), (10, 1000, True, 0.0183), (11, 1000, False, 0.0196), (0, 999, False, 0.0038)],
)
def test_the_gate_lets_one_in_a_hundred_of_a_thousand_through(
    copies: int, images: int, passed: bool, high: float
) -> None:
    found = judge([True] * copies + [False] * (images - copies))
    assert found["passed"] is passed
    assert bool(found["reason"]) is not passed
    assert found["share"]["high"] == pytest.approx(high, abs=1e-4)


def test_similarity_is_1_for_an_image_laid_over_itself() -> None:
    training = series(0)
    values = similarity(orient(training[3], 0), training, torch.tensor([3, 7]), torch.tensor([0, 0]))
    assert values[0] == pytest.approx(1)
    assert values[1] < 0.9
