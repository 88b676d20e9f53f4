import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd, Compose
from torch import nn

from clinbundles.engines.outputs.class_table import ClassTableWriter
from clinbundles.transforms.readers.loading import TolerantDataset

NAMES = ["normal", "bacterial", "COVID-19"]


class LogitsAreTheImage(nn.Module):
    """(B, 3) of the first three pixels."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.reshape(len(image), -1)[:, :3]


def load(item: dict) -> dict:
    if "broken" in item["image"]:
        raise ValueError(f"{item['image']}: not a readable image file.")
    image = torch.tensor(item["logits"], dtype=torch.float32)[None, None]
    meta = {"filename_or_obj": item["image"], "warning": item.get("said", "")}
    return {**item, "image": MetaTensor(image, meta=meta)}


def item(path: str, logits: tuple[float, ...] = (0, 0, 0), **entries) -> dict:
    return {"image": path, "logits": list(logits), **entries}


def evaluate(items: list[dict], output_dir: Path, *, softmax: bool = True, class_names=NAMES, **options) -> list[dict]:
    dataset = TolerantDataset(items, load, placeholder=(1, 1, len(items[0]["logits"])))
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(dataset, batch_size=2),
        options.pop("network", LogitsAreTheImage()),
        postprocessing=Compose(Activationsd("pred", softmax=True)) if softmax else None,
        val_handlers=[ClassTableWriter(output_dir, class_names, **options)],
    )
    evaluator.run()
    with (output_dir / "per_image.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_names_classes_and_gives_back_the_probabilities_to_the_last_digit(tmp_path: Path) -> None:
    items = [
        item("/data/a.png", (5, 0, 1), label=0, group="Smith, 1950", source="kermany"),
        item("/data/b.dcm", (-40, 2, 0), label=2, group="Jones", source="site.org"),
        item("/data/c.png", (0, 0, 3), label=2, group="Smith, 1950", source="kermany"),
    ]
    rows = evaluate(items, tmp_path / "new")
    assert list(rows[0]) == [
        "image", "label", "prediction", "probability_normal", "probability_bacterial", "probability_COVID-19",
        "correct", "failure", "warning", "source", "patient",
    ]  # fmt: skip
    assert [row["image"] for row in rows] == ["a.png", "b.dcm", "c.png"]
    assert [row["label"] for row in rows] == ["normal", "COVID-19", "COVID-19"]
    assert [row["prediction"] for row in rows] == ["normal", "bacterial", "COVID-19"]
    assert [row["correct"] for row in rows] == ["1", "0", "1"]
    assert [row["patient"] for row in rows] == ["0", "1", "0"]
    assert [row["source"] for row in rows] == ["kermany", "site.org", "kermany"]
    for row, entries in zip(rows, items, strict=True):
        written = torch.tensor([float(row[f"probability_{name}"]) for name in NAMES])
        assert torch.equal(written, torch.tensor(entries["logits"], dtype=torch.float32).softmax(0))
    assert "Smith" not in (tmp_path / "new" / "per_image.csv").read_text()
    files = [".run.json", "per_image.csv", "predictions.json", "summary.json"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == files
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert (summary["images"], summary["classes"]["normal"]["called"]) == (3, 1)


def test_a_file_that_could_not_be_read_is_in_the_table_with_its_reason_and_no_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    items = [item("/p/a.png", (5, 0, 1), label=0), item("/p/broken.png", label=0), item("/p/c.png", (0, 4, 0), label=1)]
    rows = evaluate(items, tmp_path)
    assert [row["failure"] for row in rows] == ["", "broken.png: not a readable image file.", ""]
    assert rows[1]["label"] == "normal"
    assert {rows[1][key] for key in rows[1] if key not in ("image", "label", "failure")} == {""}
    assert [row["correct"] for row in rows] == ["1", "", "1"]
    assert capsys.readouterr().out.endswith("3 in, 2 used, 1 left out: per_image.csv says why.\n")


def test_a_folder_of_which_nothing_could_be_read_is_an_error_and_its_table_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0 of 2 images could be read: .*the first: broken\.png: not a readable"):
        evaluate([item("/p/broken.png"), item("/p/broken2.png")], tmp_path)
    assert len((tmp_path / "per_image.csv").read_text().splitlines()) == 3
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 2


def test_predictions_json_says_the_same_as_the_table(tmp_path: Path) -> None:
    rows = evaluate([item("/p/a.png", (5, 0, 1)), item("/p/broken.png")], tmp_path)
    good, failed = json.loads((tmp_path / "predictions.json").read_text())
    assert good == {
        "image": "a.png",
        "prediction": "normal",
        "probabilities": {name: float(rows[0][f"probability_{name}"]) for name in NAMES},
        "failure": "",
        "warning": "",
    }
    reason = "broken.png: not a readable image file."
    assert failed == {"image": "broken.png", "prediction": "", "probabilities": {}, "failure": reason, "warning": ""}


def test_a_warning_stands_beside_the_prediction(tmp_path: Path) -> None:
    rows = evaluate([item("/p/a.png", (5, 0, 1)) | {"said": "97% of its pixels are black."}], tmp_path)
    assert (rows[0]["prediction"], rows[0]["warning"]) == ("normal", "97% of its pixels are black.")
    (written,) = json.loads((tmp_path / "predictions.json").read_text())
    assert written["warning"] == "97% of its pixels are black."


def test_what_the_items_do_not_have_is_no_column_and_every_run_begins_a_new_table(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for _ in range(2):
        rows = evaluate([item("a.png"), item("b.png"), item("c.png")], tmp_path)
        assert list(rows[0]) == [
            "image",
            "prediction",
            *(f"probability_{name}" for name in NAMES),
            "failure",
            "warning",
        ]
        assert len(rows) == 3
    assert capsys.readouterr().out.endswith("3 in, 3 used, 0 left out.\n")
    writer = ClassTableWriter(tmp_path / "epochs", NAMES)
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(Dataset([item("a.png")], load)),
        LogitsAreTheImage(),
        postprocessing=Compose(Activationsd("pred", softmax=True)),
        val_handlers=[writer],
    )
    for epoch in (1, 2):
        evaluator.run(global_epoch=epoch)
        assert len(writer.items) == 1


def test_a_failure_names_the_file_as_the_table_does(tmp_path: Path) -> None:
    rows = evaluate([item("/d/a/broken.png"), item("/d/b/broken.png"), item("/d/c.png")], tmp_path)
    assert rows[1]["failure"] == "b/broken.png: not a readable image file."


def test_a_wrong_number_of_probabilities_is_named_by_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.png: pred has shape \(3,\) for 2 classes, expected \(2,\)"):
        evaluate([item("a.png")], tmp_path, class_names=NAMES[:2])


def test_logits_and_nan_are_no_probabilities(tmp_path: Path) -> None:
    for number, logits in enumerate([(5, 0, 1), (0.7, 0.7, -0.4), (float("nan"), 0, 1)]):
        with pytest.raises(ValueError, match=r"a\.png: pred is .* expected probabilities that sum up to 1"):
            evaluate([item("a.png", logits)], tmp_path / str(number), softmax=False)
    assert not list(tmp_path.rglob("per_image.csv"))


def test_a_label_that_is_no_class_is_named(tmp_path: Path) -> None:
    for label in (3, -1):
        with pytest.raises(ValueError, match=rf"a\.png: label is {label}, expected 0 to 2"):
            evaluate([item("a.png", label=label)], tmp_path / str(label))


def test_class_names_are_two_or_more_different_ones(tmp_path: Path) -> None:
    for names in (["one"], ["same", "same"], []):
        with pytest.raises(ValueError, match="class_names are"):
            ClassTableWriter(tmp_path, names)


def test_a_new_table_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    evaluate([item("a.png")], tmp_path)
    shutil.copy(tmp_path / "per_image.csv", tmp_path / "old.csv")
    assert len(evaluate([item("a.png")], tmp_path)) == 1
    files = [".run.json", "old.csv", "per_image.csv", "predictions.json", "summary.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_the_table_of_other_images_is_kept(tmp_path: Path) -> None:
    evaluate([item("day1.png")], tmp_path)
    before = (tmp_path / "per_image.csv").read_bytes()
    with pytest.raises(ValueError, match=r"holds a run of other images: choose another --output_dir"):
        evaluate([item("day2.png")], tmp_path)
    assert (tmp_path / "per_image.csv").read_bytes() == before
