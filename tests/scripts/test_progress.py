import csv
import json
import shutil
from pathlib import Path

import pytest

from clinbundles.scripts import bars
from clinbundles.scripts.progress import digest_options, name_data
from clinbundles.scripts.run import run

ROOT = Path(__file__).parents[2]
CHANNELS = [4, 4, 4, 4, 4]


@pytest.mark.parametrize("tracking", [None, True])
def test_a_training_prints_a_line_an_epoch_and_ends_with_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, tracking: bool | None
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"image_size": 64, "channels": CHANNELS, "max_epochs": 2, "val_interval": 1}
    database = {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"} if tracking else {}
    run("two_stage_segmentation", "train_baseline", tracking=tracking, **small, **database)
    out = capfd.readouterr().out
    assert sum("poch" in line and "loss" in line and "dice" in line for line in out.splitlines()) == 2
    assert "--ckpt_path" in out.strip().splitlines()[-1]
    assert next((tmp_path / "runs").rglob("model.pt")).stat().st_size > 0


def test_a_training_whose_handlers_are_joined_by_an_expression_prints_its_epochs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"image_size": 32, "channels": [4, 4], "dense_units": 8, "max_epochs": 2, "cache_rate": 0.0}
    run("covid_xray_transfer", "train", **small)
    lines = [line for line in capfd.readouterr().out.splitlines() if "poch" in line and "loss" in line]
    assert len(lines) == 2
    assert all("val_accuracy" in line or "val_loss" in line for line in lines)


def test_an_inference_ends_with_where_its_results_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    run("covid_xray_transfer", "inference", output_dir="out")
    assert "out" in capfd.readouterr().out.strip().splitlines()[-1]
    with (tmp_path / "out" / "per_image.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) > 0


@pytest.mark.parametrize(("split", "prefix"), [("test", "test_"), ("validation", "val_")])
def test_the_metrics_of_an_evaluation_are_called_by_its_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, split: str, prefix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    database = f"sqlite:///{tmp_path}/mlflow.db"
    run("covid_xray_transfer", "evaluate", split=split, n_timed_files=1, tracking=True, tracking_uri=database)
    assert list(tmp_path.rglob("report/cost.json")), "MLflow has what an evaluation costs"
    lines = capfd.readouterr().out.splitlines()
    assert sum(f" {prefix}accuracy " in line for line in lines) == 1
    assert sum(" used, " in line or " images, " in line for line in lines) == 1, "the counts, once"


def test_an_evaluation_says_which_data_it_was_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    samples = ROOT / "bundles" / "covid_xray_transfer" / "samples"
    content = json.loads((samples / "datalist.json").read_text())
    content["test"] = content["test"][:2]
    Path("own.json").write_text(json.dumps(content))
    run("covid_xray_transfer", "evaluate", dataset_dir=str(samples), datalist="own.json")
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if " used, " in line] == ["test split of own.json: 2 in, 2 used, 0 left out."]
    shutil.copytree(samples / "images", "frames")
    run("covid_xray_transfer", "inference", dataset_dir="frames")
    count = len(list(Path("frames").iterdir()))
    assert f"frames: {count} in, {count} used, 0 left out." in capfd.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "name", ["covid_xray_transfer", "ct_datasetgan", "gaze_polyp_segmentation", "two_stage_segmentation"]
)
def test_an_inference_says_which_images_of_its_folder_it_does_not_look_at(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    image = min(path for path in (ROOT / "bundles" / name / "samples").rglob("*") if path.suffix in (".jpg", ".png"))
    for file in ("frames/1", "frames/more/2", "frames/more/3"):
        Path(file).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(image, Path(file).with_suffix(image.suffix))
    run(name, "inference", dataset_dir="frames")
    (line,) = [line for line in capfd.readouterr().out.splitlines() if " used, " in line]
    assert line == (
        "frames: 3 in, 3 used, 0 left out."  # it looks at those below, too
        if name == "covid_xray_transfer"
        else "frames: 1 in, 1 used, 0 left out; 2 images in 1 subfolders are not looked at."
    )


def test_data_are_named_by_their_list_or_folder_and_the_samples_of_the_bundle_as_its_own(tmp_path: Path) -> None:
    root, samples = str(tmp_path / "toy"), tmp_path / "toy" / "samples"
    assert name_data(root, dataset_dir=str(samples / "images")) == "the bundle's own samples"
    own, mine = str(samples / "datalist.json"), str(tmp_path / "mine.json")
    assert name_data(root, datalist=own, dataset_dir="x", split="test") == "test split of the bundle's own samples"
    assert name_data(root, datalist=mine, dataset_dir=str(samples), split="validation") == f"validation split of {mine}"
    assert name_data(root, datalist=[{"image": "a.png"}], split="test") == "test split of images handed over"


def test_a_long_evaluation_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bars, "SECONDS", 0)
    run("covid_xray_transfer", "inference", output_dir="out")
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("predicting: ")]
    assert [line.partition(",")[0] for line in lines] == [f"predicting: {n} of 4 batches" for n in (1, 2, 3)]


def test_the_hash_of_options_is_of_what_the_results_depend_on(tmp_path: Path) -> None:
    file = tmp_path / "inference.json"
    file.write_text('{"threshold": 0.5, "batch_size": 1, "output_dir": "runs", "inferer": {"overlap": 0}}')
    plain = digest_options([str(file)], {})
    same = {"threshold": 0.5, "batch_size": 4, "output_dir": "mine", "tracking": "t.json", "run_name": "a"}
    assert digest_options([str(file)], same) == plain
    for other in ({"threshold": 0.4}, {"inferer#overlap": 0.5}):
        assert digest_options([str(file)], other) != plain
