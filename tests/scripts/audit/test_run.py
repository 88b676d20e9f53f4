import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clinbundles.engines.metrics.class_report import write_class_report
from clinbundles.engines.weights_card import write_card
from clinbundles.nets.pneumonia_cnn import PneumoniaCNN
from clinbundles.scripts import cli
from clinbundles.scripts.audit.baselines import baseline_table
from clinbundles.scripts.report.results import read_results

NAMES = ["normal", "bacterial", "covid19"]
SIZES = [(40, 36), (52, 36), (36, 36)]  # width and height say the class
GRAD_CAM = {
    "layer": "features",
    "share": {"value": 0.56, "low": 0.5, "high": 0.62},
    "share_by_label": {"normal": 0.56},
    "lung_fields": 0.55,
    "images": 8,
    "empty_maps": 1,
}
TINY = {"image_size": 32, "channels": [2, 2], "dense_units": 4, "max_epochs": 1}


@pytest.fixture(scope="module")
def module(load_script) -> ModuleType:
    return load_script("audit.run")


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """A datalist of noise, the tiny network's untrained weights, and the arguments to audit them."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    splits = {"training": 18, "validation": 6, "test": 30, "same_source": 4}
    content = {"name": "noise"}
    for split, number in splits.items():
        content[split] = []
        for k in range(number):
            label = k % 2 if split == "same_source" else k % 3
            width, height = SIZES[label]
            name = f"images/secret-{split}-{k}.png"
            Image.fromarray(rng.integers(256, size=(height, width), dtype=np.uint8)).save(tmp_path / name)
            source = "web.org" if label == 2 or split == "same_source" else "hospital"
            item = {"image": name, "label": label, "group": f"patient-{split}-{k // 2}", "source": source}
            content[split].append(item)
    (tmp_path / "list.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    (tmp_path / "model").mkdir()
    network = PneumoniaCNN(3, channels=TINY["channels"], dense_units=TINY["dense_units"], image_size=32)
    torch.save(network.state_dict(), tmp_path / "model" / "model.pt")
    return {
        "dataset_dir": str(tmp_path),
        "datalist": str(tmp_path / "list.json"),
        "ckpt_dir": str(tmp_path / "model"),
        "output_dir": str(tmp_path / "out"),
        **TINY,
    }


class Runs:
    """Stands in for run_configs: notes every call and leaves behind what a training or an evaluation would."""

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.killed_at = ""

    def __call__(self, _: Path, names: list[str], *, output_dir: str, region: str, **knobs) -> None:
        model = Path(knobs.get("ckpt_path", ""))
        stage = "train" if names == ["train"] else f"evaluate {model.parent.name} {knobs['split']}"
        name = f"{stage} {region}"
        self.calls.append({"name": name, **knobs})
        if name == self.killed_at:
            raise KeyboardInterrupt
        if stage == "train":
            torch.save({"progress": {"epoch": 1}}, Path(knobs["ckpt_dir"]) / "resume.ckpt")
            return
        content = json.loads(Path(knobs["datalist"]).read_text())[knobs["split"]]
        made = Path(knobs["dataset_dir"]) / knobs["split"]
        if not made.is_dir():
            made.mkdir()
            # Says covid19 to the COVID-19 collection, and normal to the rest.
            predictions = [2 if item.get("source") == "web.org" else 0 for item in content]
            baseline_table(content, np.eye(3)[predictions], NAMES).to_csv(made / "per_image.csv", index=False)
            write_class_report(made, NAMES)
        shutil.copytree(made, output_dir)

    def names(self) -> list[str]:
        return [call["name"] for call in self.calls]


@pytest.fixture
def runs(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Runs:
    found = Runs()
    monkeypatch.setattr(module, "run_configs", found)
    monkeypatch.setattr(module, "grad_cam_shares", lambda *_, **__: GRAD_CAM)
    return found


def test_a_small_audit_runs_from_images_to_its_report(
    module: ModuleType, data: dict, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The card names the region of the training, which is no reason not to look at another one.
    write_card(tmp_path / "model" / "model.pt", {"options": {"region": "whole", "image_size": 32}})
    (tmp_path / "web").mkdir()
    for name in ("secret-1", "secret-2"):
        pixels = np.random.default_rng(1).integers(256, size=(40, 36), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "web" / f"{name}.png")
    (tmp_path / "web" / "secret-3.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "secret-4.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    data["outside"] = f"web={tmp_path / 'web'},bad={tmp_path / 'bad'}"
    module.audit_shortcuts(**data, regions="border", overlays=1)
    out = tmp_path / "out"
    audit = json.loads((out / "audit.json").read_text())
    rows = {(row["model"], row["input"]): row for row in audit["results"]}
    assert [*rows] == [
        ("audited", "whole"),
        ("audited", "border"),
        ("trained anew", "border"),
        ("decision tree", "aspect_ratio"),
        ("commonest class of each source", "source"),
        ("always the commonest class", "chance"),
    ]
    assert rows["decision tree", "aspect_ratio"]["accuracy"]["value"] == 1
    assert rows["always the commonest class", "chance"]["accuracy"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    table = pd.read_csv(out / "audited" / "whole" / "per_image.csv")
    assert rows["audited", "whole"]["accuracy"]["value"] == pytest.approx(table["correct"].mean(), abs=1e-4)
    assert audit["disease_calls"]["same source, without covid19"]["images"] == 4
    assert len(list((out / "grad_cam" / "overlays").glob("*.png"))) == 3
    assert audit["grad_cam"]["images"] + audit["grad_cam"]["empty_maps"] == 30
    assert audit["grad_cam"]["lung_fields"] == pytest.approx(0.56, abs=0.03)
    counts = [[audit["outside"][name][key] for key in ("in", "used", "left_out")] for name in ("web", "bad")]
    assert counts == [[3, 2, 1], [1, 0, 1]]
    assert sum(each["called"] for each in audit["outside"]["web"]["classes"].values()) == 2
    assert audit["outside"]["web"]["temperature"] == 1
    assert audit["patients"] == {"normal": 10, "bacterial": 10, "covid19": 10}
    with Image.open(out / "audit.png") as picture:
        assert picture.width > 1000

    results = read_results(out / "results.json")
    assert [result["row"] for result in results["results"]][:3] == ["audited", "audited", "trained anew"]
    assert results["runs"]["audit"]["seeds"] == [0]
    text = (out / "audit.md").read_text()
    for private in ("secret", "patient-", str(tmp_path)):
        assert private not in text
        assert private not in (out / "audit.json").read_text()
        assert private not in (out / "results.json").read_text()
    assert text in capsys.readouterr().out

    # The table of a run that was killed is not taken for a whole one.
    web = out / "outside" / "web"
    (web / "summary.json").unlink()
    (web / "per_image.csv").write_text("".join((web / "per_image.csv").read_text().splitlines(keepends=True)[:2]))
    module.audit_shortcuts(**data, regions="border", overlays=1)
    assert (out / "audit.md").read_text() == text

    # Nothing is done twice.
    monkeypatch.setattr(module, "run_configs", None)
    module.audit_shortcuts(**data, regions="border", overlays=1)
    assert (out / "audit.md").read_text() == text


def test_each_region_is_seen_by_the_audited_model_and_by_one_trained_on_it(
    module: ModuleType, data: dict, runs: Runs
) -> None:
    module.audit_shortcuts(**data, initial_weights=None, seed=3)
    assert runs.names() == [
        "evaluate model test whole",
        "evaluate model test border",
        "evaluate model test lungs_masked",
        "evaluate model test lungs",
        "evaluate model same_source whole",
        *("train border", "evaluate border test border"),
        *("train lungs_masked", "evaluate lungs_masked test lungs_masked"),
        *("train lungs", "evaluate lungs test lungs"),
    ]
    assert all(call["seed"] == 3 and call["image_size"] == 32 for call in runs.calls)
    assert all(call["initial_weights"] is None for call in runs.calls)
    # Test images that are trained on too are counted by the report: a training would refuse them.
    trainings = [call for call in runs.calls if call["name"].startswith("train")]
    assert all(call["train#dataset#data#apart_from"] == [] for call in trainings)


def test_retraining_can_be_left_out_and_made_up_for_with_the_whole_image_too(
    module: ModuleType, data: dict, runs: Runs
) -> None:
    module.audit_shortcuts(**data, regions=("border",), retrain=False)
    assert runs.names()[-1] == "evaluate model same_source whole"
    before = len(runs.calls)
    module.audit_shortcuts(**data, regions="whole,border")
    assert runs.names()[before:] == [
        *("train whole", "evaluate whole test whole"),
        *("train border", "evaluate border test border"),
    ]


def test_a_killed_audit_goes_on_where_it_was(module: ModuleType, data: dict, runs: Runs, tmp_path: Path) -> None:
    runs.killed_at = "evaluate border test border"
    with pytest.raises(KeyboardInterrupt):
        module.audit_shortcuts(**data, regions="border")
    # What is known so far is written before the long trainings.
    assert "trained anew |" not in (tmp_path / "out" / "audit.md").read_text()
    before, runs.killed_at = len(runs.calls), ""
    module.audit_shortcuts(**data, regions="border")
    assert runs.names()[before:] == ["evaluate border test border"]
    assert "| the border alone | trained anew |" in (tmp_path / "out" / "audit.md").read_text()


def test_a_killed_training_is_resumed(module: ModuleType, data: dict, runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "trained_anew" / "border"
    folder.mkdir(parents=True)
    torch.save({"progress": {"epoch": 2}}, folder / "resume.ckpt")
    module.audit_shortcuts(**{**data, "max_epochs": 5}, regions="border")
    assert [call["resume"] for call in runs.calls if call["name"] == "train border"] == [True]


def test_a_model_that_tells_the_sources_apart_is_found_out(
    module: ModuleType, data: dict, runs: Runs, tmp_path: Path
) -> None:
    module.audit_shortcuts(**data, regions="border")
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    calls = audit["disease_calls"]
    assert [(found["called"], found["images"]) for found in calls.values()] == [(10, 10), (0, 20), (4, 4)]
    said = " ".join(audit["conclusion"])
    assert "4 of 4 (same source, without covid19)" in said
    assert "the border alone gives 0.667" in said
    assert "no less than the whole image with 0.667" in said
    assert "the source's name alone gives 0.667" in said
    web = audit["sources"]["web.org"]
    assert (web["images"], web["labels"], web["scores"]["val_accuracy"]["value"]) == (10, {"covid19": 10}, 1.0)


def test_an_audit_without_same_source_and_sources_leaves_these_out(
    module: ModuleType, data: dict, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = json.loads(Path(data["datalist"]).read_text())
    del content["same_source"]
    del content["training"][0]["source"]
    Path(data["datalist"]).write_text(json.dumps(content))
    module.audit_shortcuts(**data, regions="border", retrain=False)
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert audit["disease_calls"] is None
    assert "source" not in [row["input"] for row in audit["results"]]
    assert "no split same_source" in capsys.readouterr().out


def test_wrong_arguments_are_one_sentence_before_anything_runs(module: ModuleType, data: dict, runs: Runs) -> None:
    for changed, message in (
        ({"regions": "heart"}, "regions: 'heart' is not one of whole, border"),
        ({"dataset_dir": "absent"}, "--dataset_dir .*absent: no such folder"),
        ({"datalist": "absent.json"}, "--datalist .*absent.json: no such file"),
        ({"ckpt_dir": "absent"}, "--ckpt_dir .*absent: has no model.pt"),
        ({"image_siz": 32}, r"--image_siz is no value of evaluate\.json; did you mean --image_size"),
        ({"region": "border"}, "--region is set by the audit itself"),
        ({"cam_layer": "layer4"}, "--cam_layer is 'layer4', which the network does not have; it has features"),
        ({"overlays": 0}, "--overlays is 0"),
        ({"channels": [2, 3]}, r"weights do not fit .* \(4x128, expected 4x192\)\. Pass the options that"),
        ({"class_names": ["normal", "bacterial"]}, "has label 2, expected 0 to 1"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            module.audit_shortcuts(**{**data, **changed})
    assert not runs.calls
    assert not Path(data["output_dir"]).exists()


def test_test_images_that_the_model_was_trained_on_are_marked_or_refused(
    module: ModuleType, data: dict, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = json.loads(Path(data["datalist"]).read_text())
    trained = {"training": content["test"][:4], "validation": content["validation"]}
    (tmp_path / "trained.json").write_text(json.dumps(trained))
    module.audit_shortcuts(**data, regions="border", retrain=False)
    assert "trained on test images cannot be known: they have no card" in capsys.readouterr().out
    named = {"trained_on": str(tmp_path / "trained.json")}
    module.audit_shortcuts(**data, regions="border", retrain=False, **named)
    text = (tmp_path / "out" / "audit.md").read_text()
    assert text.count("| the whole image | audited (4 of 30 trained on) |") == 2
    (tmp_path / "trained.json").write_text(json.dumps({"training": content["test"]}))
    with pytest.raises(ValueError, match="was trained on all 30 test images"):
        module.audit_shortcuts(**data, **named)
    with pytest.raises(FileNotFoundError, match=r"--trained_on .*absent: no such file"):
        module.audit_shortcuts(**data, trained_on="absent")


@pytest.mark.parametrize("split", ["training", "validation", "test"])
def test_a_missing_split_is_named(module: ModuleType, data: dict, split: str) -> None:
    content = json.loads(Path(data["datalist"]).read_text())
    Path(data["datalist"]).write_text(json.dumps({**content, split: []}))
    with pytest.raises(ValueError, match=f"list.json: has no split {split}"):
        module.audit_shortcuts(**data)


def test_a_broken_datalist_or_model_is_named(module: ModuleType, data: dict) -> None:
    (Path(data["ckpt_dir"]) / "model.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"model\.pt: not a file of weights"):
        module.audit_shortcuts(**data)
    Path(data["datalist"]).write_text("{")
    with pytest.raises(ValueError, match=r"list\.json: is not JSON"):
        module.audit_shortcuts(**data)


def test_a_model_of_a_part_of_the_image_is_not_audited(module: ModuleType, data: dict, runs: Runs) -> None:
    write_card(Path(data["ckpt_dir"]) / "model.pt", {"options": {"region": "border"}})
    with pytest.raises(ValueError, match=r"model\.pt: was trained on region border"):
        module.audit_shortcuts(**data)


def test_the_command_ends_with_a_sentence(module: ModuleType, data: dict, capsys: pytest.CaptureFixture) -> None:
    arguments = [f"--{name}={data[name]}" for name in ("dataset_dir", "datalist", "output_dir")]
    with pytest.raises(SystemExit, match=r"^clinbundles audit: --ckpt_dir .* has no model\.pt"):
        cli.main(["audit", *arguments, "--ckpt_dir=absent"])


def test_a_folder_of_another_audit_is_refused(module: ModuleType, data: dict, runs: Runs) -> None:
    module.audit_shortcuts(**data, regions="border", retrain=False)
    with pytest.raises(ValueError, match="was begun with seed 0, now asked for 1"):
        module.audit_shortcuts(**data, seed=1)
    model = Path(data["ckpt_dir"]) / "model.pt"
    torch.save({name: 2 * weight for name, weight in torch.load(model, weights_only=True).items()}, model)
    with pytest.raises(ValueError, match="was begun with model"):
        module.audit_shortcuts(**data)
