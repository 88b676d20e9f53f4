"""Tests of the command that follows a run: it is run as it is printed."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clinbundles.scripts.bundle import config_files, config_names, find_bundle, next_command, open_configs
from clinbundles.scripts.next_command import called_by_monai, called_by_project, configs_of

BUNDLES = sorted(path.parents[1] for path in Path(__file__).parents[2].glob("bundles/*/configs/metadata.json"))


def test_the_printed_command_runs_as_it_stands(tmp_path: Path) -> None:
    data = tmp_path / "my frames #1"
    shutil.copytree(find_bundle("two_stage_segmentation") / "samples", data)
    options = f"--dataset_dir '{data}' --datalist '{data}/datalist.json' --image_size 64 --channels '[4,4,4,4,4]'"
    small = f"--max_epochs 1 --runs_dir 'my runs' {options}"
    line = run_line(f"clinbundles run two_stage_segmentation train_baseline {small}", tmp_path)
    assert "next, with the same options: clinbundles run two_stage_segmentation train_baseline,evaluate" in line
    last = run_line(line.partition("options: ")[2], tmp_path)
    assert "my runs" in last
    assert len(list((tmp_path / "my runs").rglob("metrics.json"))) == 1


def run_line(line: str, folder: Path) -> str:
    """Run a line by a shell in a folder; its last line."""
    command = line.replace("clinbundles", f"{shlex.quote(sys.executable)} -m clinbundles.scripts.cli", 1)
    done = subprocess.run(
        command, shell=True, cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_options_of_the_run_alone_and_those_that_the_command_has_are_not_added() -> None:
    folder = find_bundle("ct_datasetgan")
    given = {"dataset_dir": "a", "datalist": "a/d.json", "output_dir": "out dir", "stage": "x", "seed": 3}
    assert next_command(folder, ["project"], {**given, "generator_weights": "g.pt"}) == (
        "clinbundles run ct_datasetgan train_interpreter --dataset_dir 'out dir' --generator_weights g.pt --seed 3"
    )
    assert next_command(folder, ["inference"], given) is None
    line = next_command(folder, ["train"], {"max_epochs": 2, "learning_rate": "$0.1 * 2", "datalist": "l.json"})
    assert line is not None
    assert line.endswith("/model.pt --learning_rate '$0.1 * 2' --datalist l.json --allow_expressions true")


def test_a_copy_of_a_bundle_is_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "two_stage_segmentation"
    shutil.copytree(find_bundle("two_stage_segmentation") / "configs", copy / "configs")
    line = next_command(copy, ["train"], {})
    assert line is not None
    assert line.startswith(f"clinbundles run {copy} evaluate --ckpt_path ")


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_in_a_zip_it_is_a_call_of_monai_with_the_files_that_the_project_would_take(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / bundle.name
    (folder / "configs").mkdir(parents=True)
    files = {name: [f"configs/{file.name}" for file in config_files(bundle, [name])] for name in config_names(bundle)}
    for file in (bundle / "configs").glob("*.json"):
        (folder / "configs" / file.name).write_text(called_by_monai(file.read_text(), files))
    with_paper = [["train", "paper"]] if "paper" in files else []
    calls = 0
    for names in [*([name] for name in files), *with_paper]:
        here, there = (open_configs(place, names, runs_dir="r", bundle_root="b") for place in (bundle, folder))
        if "next_command" not in here:
            continue
        ours, call = (parser.get_parsed_content("next_command") for parser in (here, there))
        options = " ".join(ours.split(" ")[4:])
        paths = [f"configs/{file.name}" for file in config_files(bundle, configs_of(ours))]
        listed = str(paths).replace(" ", "")
        shown = f'"{listed}"' if len(paths) > 1 else paths[0]
        assert call == f"python -m monai.bundle run --config_file {shown} {options}"
        stems = ",".join(Path(path).stem for path in paths)
        assert called_by_project(call) == f"clinbundles run . {stems} {options}"
        assert called_by_project(ours) == ours
        calls += 1
    assert calls
    monkeypatch.chdir(tmp_path)  # of a zip that is unzipped where the project is
    command = next_command(folder, ["train"], {"seed": 3, "runs_dir": "r"})
    assert command is not None
    assert command.startswith(f"clinbundles run {folder} train,evaluate --ckpt_path r/")
    assert command.endswith("/model.pt --seed 3 --runs_dir r")
