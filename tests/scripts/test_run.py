from pathlib import Path
from typing import Any

import pytest
import torch

from clinbundles.scripts import run as run_module
from clinbundles.scripts.bundle import config_names, open_configs
from clinbundles.scripts.run import own_folder, run

ROOT = Path(__file__).parents[2]
FOLDERS = sorted((ROOT / "bundles").glob("*/"))
GAZE = ROOT / "bundles" / "gaze_polyp_segmentation"
SMALL: dict[str, Any] = {"arm": "original", "image_size": 32, "channels": [4] * 6, "max_epochs": 1, "cache_rate": 0.0}


def test_each_evaluation_and_inference_that_names_no_folder_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in FOLDERS:
        for name in ("evaluate", "inference"):
            default = own_folder(folder, [name], {})["output_dir"]
            assert Path(default).parent == Path("runs", folder.name)
            for number in (2, 3):
                assert not list(Path(default).iterdir())  # which another run may be about to fill
                default = own_folder(folder, [name], {"runs_dir": f"runs/{folder.name}"})["output_dir"]
                assert default.endswith(f"_{number}")
            assert own_folder(folder, [name], {"output_dir": "mine"}) == {}


def test_each_training_that_names_no_folder_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in FOLDERS:
        for name in config_names(folder):
            parser = open_configs(folder, [name])
            if "trainer.run()" not in str(parser["run"]):
                continue
            first = Path(parser.get_parsed_content("ckpt_dir"))
            for path in first.parent.glob("*"):  # of a config with the same stage
                path.rmdir()
            capsys.readouterr()
            assert own_folder(folder, [name], {}) == {"ckpt_dir": str(first)}
            assert not capsys.readouterr().out
            assert own_folder(folder, [name], {"resume": "$True"}) == {"ckpt_dir": str(first)}
            assert own_folder(folder, [name], {"runs_dir": f"runs/{folder.name}"}) == {"ckpt_dir": f"{first}_2"}
            first.rmdir()
            first.with_name(f"{first.name}_old").mkdir()
            assert own_folder(folder, [name], {}) == {"ckpt_dir": f"{first}_3"}, "no number is given again"
            assert own_folder(folder, [name], {"resume": True}) == {"ckpt_dir": f"{first}_3"}
            assert own_folder(folder, [name], {"stage": "mine"}) == {"ckpt_dir": str(first.with_name("mine"))}


def test_a_second_training_keeps_the_weights_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    run(GAZE.name, "train", **SMALL)
    first = Path("runs", GAZE.name, "train", "model.pt")
    before = first.read_bytes()
    capsys.readouterr()
    run(GAZE.name, "train", **SMALL, seed=1)
    said = capsys.readouterr().out.splitlines()
    second = Path("runs", GAZE.name, "train_2", "model.pt")
    assert first.read_bytes() == before != second.read_bytes()
    with pytest.raises(RuntimeError, match="start_from"):
        run(GAZE.name, "train", **SMALL, initial_weights="no.pt")
    assert "a new training" not in capsys.readouterr().out
    assert said[0] == f"{second.parent}: a new training, as {first.parent} is there; " + (
        f"--resume true goes on with {first.parent}"
    )
    assert f"evaluate --ckpt_path {second} " in said[-1]

    run(GAZE.name, "train", **SMALL | {"max_epochs": 2}, seed=1, resume=True)
    assert f"{second.parent}: the training that this one goes on with" in capsys.readouterr().out
    assert torch.load(second.with_name("resume.ckpt"), weights_only=True)["progress"]["epoch"] == 2
    assert first.read_bytes() == before


def test_a_folder_that_is_named_keeps_its_weights_unless_a_training_goes_on_or_may_replace_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for weights in ("model.pt", "resume.ckpt"):
        mine = tmp_path / weights.partition(".")[0]
        here = {"ckpt_dir": str(mine)}
        assert own_folder(GAZE, ["train"], here) == {}
        mine.mkdir()
        (mine / weights).touch()
        with pytest.raises(ValueError, match=rf"--ckpt_dir {mine}: has {weights} of another .* by --replace true\.$"):
            own_folder(GAZE, ["train"], here)
        assert own_folder(GAZE, ["train"], here | {"resume": True}) == {}
        assert own_folder(GAZE, ["train"], here, replace=True) == {}
    assert own_folder(GAZE, ["train"], {}, replace=True) == {}, "it is that of the config"
    with pytest.raises(ValueError, match="--replace and --resume"):
        own_folder(GAZE, ["train"], {"resume": True}, replace=True)
    for name in ("evaluate", "inference"):
        with pytest.raises(ValueError, match="--replace: a training alone"):
            own_folder(GAZE, [name], {}, replace=True)
    assert not list(tmp_path.rglob("train*"))


def test_an_option_that_runs_code_is_refused_unless_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list = []
    monkeypatch.setattr(run_module, "run_configs", lambda *_, **options: ran.append(options))
    with pytest.raises(ValueError, match=r"--output_dir: '\$open\(1\)' would run code; .* --allow_expressions"):
        run("gaze_polyp_segmentation", "inference", output_dir="$open(1)")
    with pytest.raises(ValueError, match=r"--network_def#_target_: 'os\.system' would run code"):
        run("gaze_polyp_segmentation", "inference", **{"network_def::_target_": "os.system"})
    assert not ran
    run("gaze_polyp_segmentation", "inference", output_dir="$open(1)", allow_expressions=True)
    run("gaze_polyp_segmentation", "inference", output_dir="$None")
    assert [options["output_dir"] for options in ran] == ["$open(1)", "$None"]


def test_a_run_takes_the_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran: list = []
    monkeypatch.setattr(run_module, "run_configs", lambda *_, **options: ran.append(options))
    used = Path("runs", "gaze_polyp_segmentation", "inference", "per_image.csv")
    used.parent.mkdir(parents=True)
    used.touch()
    run("gaze_polyp_segmentation", "inference", batch_size=2)
    assert ran == [{"batch_size": 2, "output_dir": f"{used.parent}_2"}]
    used.with_name(".run.json").write_text('{"images": ""}')
    used.write_text("image,failure\na.png,is no image\n")
    run("gaze_polyp_segmentation", "inference")  # the run before could use nothing
    assert ran[1] == {"output_dir": str(used.parent)}


def test_a_run_that_is_refused_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--batch_sise is no value"):
        run("gaze_polyp_segmentation", "inference", batch_sise=2)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(run_module, "run_configs", lambda *_, **options: Path(options["absent"]))
    with pytest.raises(KeyError):
        run("gaze_polyp_segmentation", "inference")
    assert not list(tmp_path.rglob("inference*"))


@pytest.mark.parametrize("name", ["validation_split", "dataset_dir", "initial_weights"])
@pytest.mark.parametrize("place", [{}, {"ckpt_dir": "mine"}])
def test_a_training_that_is_refused_leaves_nothing_tracked_or_not(
    name: str, place: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    for tracking in (None, True):
        with pytest.raises((RuntimeError, ValueError, OSError)):
            run(GAZE.name, "train", tracking=tracking, **SMALL | place | {name: "none.pt"})
        assert not list(tmp_path.rglob("train*"))
        assert not (tmp_path / "mine").exists()


def test_a_folder_that_was_there_and_what_else_is_in_it_outlive_a_training_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    config = Path("runs", GAZE.name, "train", "config_20260101_000000.json")
    config.parent.mkdir(parents=True)
    config.touch()  # of a training that begins in another process
    for options in ({"ckpt_dir": "mine"}, {"resume": True}):
        with pytest.raises((RuntimeError, ValueError, OSError)):
            run(GAZE.name, "train", validation_split="none", **SMALL | options)
        assert config.is_file()
        assert (tmp_path / "mine").is_dir()


def test_a_training_goes_on_with_the_last_folder_that_has_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    first = Path("runs", GAZE.name, "train")
    for number in ("", "_2", "_3", "_10"):
        first.with_name(f"train{number}").mkdir(parents=True)
    resumed = {"resume": True}
    assert own_folder(GAZE, ["train"], resumed) == {"ckpt_dir": f"{first}_10"}, "none has one: it begins in the last"
    (first.with_name("train_10") / "model.pt").touch()
    assert own_folder(GAZE, ["train"], resumed) == {"ckpt_dir": f"{first}_11"}, "and in no place of another's weights"
    assert not Path(f"{first}_11").exists()
    for number in ("", "_2"):
        (first.with_name(f"train{number}") / "resume.ckpt").touch()
    capsys.readouterr()
    assert own_folder(GAZE, ["train"], resumed) == {"ckpt_dir": f"{first}_2"}
    assert capsys.readouterr().out == f"{first}_2: the training that this one goes on with\n"
    assert own_folder(GAZE, ["train"], {}) == {"ckpt_dir": f"{first}_11"}
    assert capsys.readouterr().out.endswith(f"as {first}_10 is there; --resume true goes on with {first}_2\n")
