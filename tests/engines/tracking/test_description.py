import hashlib
import re
from pathlib import Path

import mlflow
import pytest
from torch import nn

from clinbundles.engines.tracking.description import (
    command_of,
    describe_experiment,
    description_tags,
    network_name,
    readable_name,
    start_of,
)
from clinbundles.scripts.bundle import read_configs

BUNDLES = sorted(path.parents[1] for path in Path(__file__).parents[3].glob("bundles/*/configs/metadata.json"))

# MLflow's queries use an option that SQLAlchemy gives up, and its pools are closed by the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Shared(nn.Module):
    """Holds a network as DistributedDataParallel does."""

    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    ("config", "kind", "name"),
    [
        ({"stage": "coarse", "seed": 3}, "training", "coarse_Linear_seed3"),
        ({"stage": "scratch", "network_name": "resnet50", "seed": 0}, "training", "scratch_resnet50_seed0"),
        ({"seed": 0}, "evaluation", "evaluation_Linear_seed0"),
        ({}, "inference", "inference_Linear"),
    ],
)
def test_a_name_tells_kind_stage_network_and_knobs(config, kind, name):
    knobs = ["stage", "network_name", "seed"]
    given = readable_name(config, nn.Linear(1, 1), kind=kind, name_knobs=knobs, bundle="toy")
    assert re.fullmatch(re.escape(name) + r"_\d{8}-\d{6}", given)


def test_a_run_without_network_or_knob_has_the_name_of_its_bundle_and_a_shared_network_its_own():
    assert readable_name({}, None, kind="training", name_knobs=[], bundle="toy").startswith("toy_20")
    assert network_name({}, Shared(nn.Linear(1, 1))) == "Linear"
    assert network_name({"network_def": {"_target_": "nets.datasetgan.Generator"}}, None) == "Generator"


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda path: path.name)
def test_a_training_of_each_bundle_says_what_it_starts_from(folder, tmp_path):
    config = read_configs(folder, ["train"]) | {"runs_dir": str(tmp_path)}
    (tmp_path / "DOE").mkdir()
    (tmp_path / "DOE" / "model.pt").write_bytes(b"weights")
    digits = hashlib.sha256(b"weights").hexdigest()
    for path in (str(tmp_path / "DOE" / "model.pt"), "$@runs_dir + '/DOE/model.pt'"):
        start = start_of(config | {"initial_weights": path})
        assert (start.text, start.word) == (f"model.pt, sha256 {digits[:12]}", f"from-{digits[:6]}")
    (tmp_path / "DOE" / "model.pt").write_bytes(b"others")
    assert start_of(config | {"initial_weights": path}).word != start.word
    for nothing in (None, "$None"):
        assert start_of(config | {"initial_weights": nothing}) is None
    assert config["initial_weights"] is None
    assert start_of({}) is None


def test_weights_of_a_library_are_told_by_their_name():
    start = start_of({"initial_weights": "ResNet50_Weights.IMAGENET1K_V1"})
    assert (start.text, start.word) == ("ResNet50_Weights.IMAGENET1K_V1", "from-IMAGENET1K_V1")
    name = readable_name({"seed": 0}, None, kind="training", name_knobs=["seed"], bundle="toy", start=start)
    assert re.fullmatch(r"seed0_from-IMAGENET1K_V1_\d{8}-\d{6}", name)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (
            ["/opt/bin/clinbundles", "run", "toy", "train", "--dataset_dir", "DOE/data", "--lr=0.1", "--tracking"],
            "clinbundles run toy train --dataset_dir ... --lr=0.1 --tracking",
        ),
        (
            ["/w/scripts/cli.py", "run", "/home/doe/toy", "--ckpt_path", "runs/DOE/model.pt", "--resume", "true"],
            "clinbundles run ... --ckpt_path ... --resume true",
        ),
        (
            ["/x/monai/bundle/__main__.py", "run", "--config_file", "configs/train.json", "--ckpt_path=/d/DOE.pt"],
            "python -m monai.bundle run --config_file ... --ckpt_path=...",
        ),
        (["clinbundles", "run", "--data", "[{'image': '/d/DOE.png'}]", "-3"], "clinbundles run --data ... -3"),
        (["/opt/doe/server", "--studies", "/data/DOE"], "server"),
        ([""], "python"),
    ],
)
def test_a_command_is_told_without_private_paths(arguments, command):
    assert command_of(arguments, untracked=["ckpt_path", "resume"]) == command


def test_a_path_in_a_command_is_not_shown_since_it_may_name_a_patient(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Doe_Jane").mkdir()
    (tmp_path / "Doe_John.tsv").touch()
    (tmp_path / "run").mkdir()
    options = ["--dataset_dir", "Doe", "--gaze_file=Doe.tsv", "--datalist", "Doe.json", "--weights", "Doe_John.tsv"]
    options += ["--sets=a,Doe_Jane", "--other", "x\\Doe", "--lr", "0.1", "--tracking", "--seed=3"]
    command = command_of(["clinbundles", "run", "toy", "patients/Doe_Jane", "Doe_Jane", *options])
    assert "Doe" not in command
    assert command == (
        "clinbundles run toy ... ... --dataset_dir ... --gaze_file=... --datalist ... --weights ... --sets=... "
        "--other ... --lr 0.1 --tracking --seed=3"
    )


def test_the_columns_of_mlflow_are_filled(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    tags = description_tags({"task": "Find polyps"}, "clinbundles run", git_commit="ab" * 20)
    assert tags == {
        "mlflow.source.name": "clinbundles run",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "ab" * 20,
        "mlflow.note.content": "Find polyps\n\n    clinbundles run",
        "mlflow.user": "ada",
    }
    assert "mlflow.source.git.commit" not in description_tags({}, "x", git_commit="unknown")


def test_a_user_without_a_name_is_a_number(monkeypatch):
    def fail():
        raise OSError("no name")

    monkeypatch.setattr("getpass.getuser", fail)
    assert description_tags({}, "x", git_commit="unknown")["mlflow.user"].isdigit()


def test_an_experiment_is_described_once_and_what_somebody_wrote_is_kept(uri):
    client = mlflow.MlflowClient(uri)
    number = client.create_experiment("toy_bundle")
    run_id = client.create_run(number).info.run_id
    describe_experiment(client, run_id, meta={})
    assert "mlflow.note.content" not in client.get_experiment(number).tags
    describe_experiment(client, run_id, meta={"task": "Find polyps", "intended_use": "Research."})
    assert client.get_experiment(number).tags["mlflow.note.content"] == "Find polyps\n\nResearch."
    client.set_experiment_tag(number, "mlflow.note.content", "mine")
    describe_experiment(client, run_id, meta={"task": "Find polyps"})
    assert client.get_experiment(number).tags["mlflow.note.content"] == "mine"


def test_the_modules_that_make_a_command_are_where_they_are_looked_for():
    root = Path(__file__).parents[3]
    assert (root / "scripts" / "cli.py").is_file()
