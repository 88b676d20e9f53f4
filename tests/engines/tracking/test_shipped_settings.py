"""The settings in mlflow/tracking.json with a bundle of its own."""

import inspect
import json
from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow
from monai.bundle import run as run_bundle

from clinbundles.engines.tracking.handler import TrackingHandler

ROOT = Path(__file__).parents[3]
# MLflow's queries use an option that SQLAlchemy gives up, and its pools are closed by the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


BUNDLE = {
    "imports": ["$import sys"],
    "name_knobs": ["network_name", "seed"],
    "network_name": "linear",
    "seed": 7,
    "max_epochs": 2,
    "learning_rate": 0.01,
    "bundle_root": ".",
    "dataset_dir": "/home/doe/data",
    "device": "$torch.device('cpu')",
    "samples": "$[{'image': torch.ones(1, 2), 'label': torch.zeros(1, 1)}] * 3",
    "network": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1},
    "optimizer": {
        "_target_": "torch.optim.SGD",
        "params": "$@network.parameters()",
        "lr": "@learning_rate",
    },
    "validate": {
        "key_metric": {"val_mae": {"_target_": "MeanAbsoluteErrorHandler"}},
        "handlers": [],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@samples",
            "network": "@network",
            "key_val_metric": {
                "val_mae": {
                    "_target_": "MeanAbsoluteError",
                    "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
                }
            },
            "val_handlers": "@validate#handlers",
        },
    },
    "train": {
        "handlers": [{"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": 1}],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "device": "@device",
            "max_epochs": "@max_epochs",
            "train_data_loader": "@samples",
            "network": "@network",
            "loss_function": {"_target_": "torch.nn.MSELoss"},
            "optimizer": "@optimizer",
            "train_handlers": "@train#handlers",
        },
    },
    "run": ["$@train#trainer.run()"],
}


@pytest.mark.filterwarnings("ignore:.*executed:UserWarning", "ignore:.*GHSA.*")
@pytest.mark.parametrize("literal", [True, False])
def test_the_shipped_settings_track_a_bundle_and_its_evaluation(bundle, uri, runs, monkeypatch, literal):
    monkeypatch.chdir(bundle)
    folders = {"output_dir": "runs/out", "ckpt_dir": "runs/models"}
    if not literal:
        folders = {"output_dir": "$@bundle_root + '/runs/out'", "ckpt_dir": "$@bundle_root + '/runs/models'"}
    config = json.loads(json.dumps(BUNDLE | folders))
    del config["validate"]["key_metric"]
    config["validate"]["evaluator"]["key_val_metric"]["val_mae"]["_target_"] = "monai.handlers.MeanAbsoluteError"
    (bundle / "configs" / "train.json").write_text(json.dumps(config))
    settings = {"tracking": str(ROOT / "mlflow" / "tracking.json"), "tracking_uri": uri}
    options = {"config_file": "configs/train.json", "logging_file": False, "workflow_type": "train"}
    for more in ({}, {"run": ["$@validate#evaluator.run()"]}):
        workflow = ConfigWorkflow(**options, **settings, seed=8, **more)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    # inference.json has its evaluator at the top, and no metric
    single = {key: value for key, value in config.items() if key not in ("train", "validate", "optimizer")}
    engine = {k: v for k, v in config["validate"]["evaluator"].items() if k != "key_val_metric"}
    single |= {"handlers": [], "evaluator": engine | {"val_handlers": "@handlers"}, "run": ["$@evaluator.run()"]}
    (bundle / "configs" / "inference.json").write_text(json.dumps(single))
    run_bundle(
        config_file="configs/inference.json", logging_file=False, tracking=settings["tracking"], tracking_uri=uri
    )
    client, (training, evaluation, inference) = runs()
    assert inference.data.tags["kind"] == "inference"
    assert inference.data.tags["training_run_id"] == training.info.run_id
    assert training.info.run_name.startswith("linear_seed8_")
    assert evaluation.info.run_name.startswith("evaluation_linear_seed8_")
    assert evaluation.data.tags["training_run_id"] == training.info.run_id
    assert [run.info.status for run in (training, evaluation, inference)] == ["FINISHED"] * 3
    assert training.data.tags["bundle_version"] == "0.3.1"
    assert training.data.params == {
        "network_name": "linear",
        "seed": "8",
        "learning_rate": "0.01",
        "max_epochs": "2",
        "epoch_length": "3",
        "dataset_dir": "data",
        "datalist": "None",
        "device": "cpu",
        "samples": "$[{'image': torch.ones(1, 2), 'label': torch.zeros(1, 1)}] * 3",
    }
    # What a training alone needs has in a config of an evaluation its default, whatever the weights were trained with.
    judged = {"network_name", "dataset_dir", "datalist", "device", "samples"}
    assert evaluation.data.params.keys() == judged - {"network_name", "dataset_dir"}
    steps = [m.step for m in client.get_metric_history(training.info.run_id, "val_mae")]
    assert steps == [1, 2]
    assert len(client.list_artifacts(training.info.run_id, "config")) == 1


def test_the_shipped_settings_give_each_handler_only_arguments_it_has_and_every_key_a_value():
    configs = json.loads((ROOT / "mlflow" / "tracking.json").read_text())["configs"]
    parameters = inspect.signature(TrackingHandler).parameters.keys()
    for name in ("trainer", "validator", "evaluator"):
        arguments = {key: value for key, value in configs[name].items() if not key.startswith("_")}
        assert arguments.keys() <= parameters
        references = {str(value)[1:] for value in arguments.values() if str(value).startswith("@")}
        assert references <= configs.keys() | {"bundle_root"}
    assert not list((ROOT / "mlflow").glob("*.py"))
