"""Real engines, real SQLite stores, one real MLflow server."""

import contextlib
import inspect
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import pytest
import torch
from ignite.engine import Events
from ignite.metrics import Average
from monai.bundle import ConfigWorkflow
from monai.bundle import run as run_bundle
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import StatsHandler, ValidationHandler

from clinbundles.engines.tracking import record as run_record
from clinbundles.engines.tracking.handler import Terminated, TrackingHandler

ROOT = Path(__file__).parents[3]
# MLflow's queries use an option that SQLAlchemy gives up, and its pools are closed by the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_PARENT_RUN_ID", "MLFLOW_HTTP_REQUEST_TIMEOUT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setattr(run_record, "FIRST_PAUSE_S", 0.0)


@pytest.fixture(scope="session")
def template(request, tmp_path_factory):
    """An empty MLflow database; making one takes seconds, so it is kept between test runs."""
    kept = request.config.cache.mkdir("mlflow") / f"{mlflow.__version__}.db"
    if not kept.is_file():
        path = tmp_path_factory.mktemp("template") / "mlflow.db"
        client = mlflow.MlflowClient(f"sqlite:///{path}")
        client.search_experiments()
        client._tracking_client.store._dispose_engine()
        shutil.copyfile(path, kept.with_suffix(f".{os.getpid()}"))
        os.replace(kept.with_suffix(f".{os.getpid()}"), kept)
    return kept


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module", autouse=True)
def server(template, tmp_path_factory):
    """Starts a real MLflow server, which takes seconds to answer, while the other tests run."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(template, folder / "mlflow.db")
    address, store = f"http://127.0.0.1:{(port := free_port())}", f"sqlite:///{folder / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | quiet, cwd=folder, start_new_session=True
        )

    def wait():
        for _ in range(400):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=2):
                return address, store
            assert process.poll() is None, (folder / "log.txt").read_text()
            time.sleep(0.3)
        raise TimeoutError((folder / "log.txt").read_text())

    def kill():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    yield wait, kill
    kill()


@pytest.fixture
def uri(tmp_path, template):
    shutil.copyfile(template, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def bundle(tmp_path):
    root = tmp_path / "toy_bundle"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "metadata.json").write_text('{"version": "0.3.1", "name": "toy"}')
    return root


def data(n=4):
    return [{"image": torch.full((1, 2), float(i)), "label": torch.zeros(1, 1)} for i in range(n)]


def evaluator(values, handlers=()):
    """An evaluator whose key metric takes the given values, one a run."""
    results = iter(values)
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=data(2),
        network=torch.nn.Linear(2, 1),
        key_val_metric={"val_dice": Average(output_transform=lambda _: torch.tensor(next(results)))},
        val_handlers=[StatsHandler(output_transform=lambda _: None), *handlers],
    )


def trainer(handlers=(), epochs=2):
    network = torch.nn.Linear(2, 1, bias=False)
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=data(),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1e-3),
        loss_function=torch.nn.MSELoss(),
        train_handlers=[StatsHandler(output_transform=lambda _: None), *handlers],
    )


@pytest.fixture
def handler(bundle, tmp_path, uri):
    def make(**kwargs):
        settings = {"tracking_uri": uri, "output_dir": tmp_path / "out", "ckpt_dir": tmp_path / "ckpt"}
        return TrackingHandler(**{"bundle_root": bundle, **settings, **kwargs})

    return make


@pytest.fixture
def runs(uri):
    def find(store=uri):
        client = mlflow.MlflowClient(store)
        experiment = client.get_experiment_by_name("toy_bundle")
        found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
        return client, found

    return find


def raise_at(event, error):
    class Raiser:
        def attach(self, engine):
            engine.add_event_handler(event, self)

        def __call__(self, engine):
            raise error

    return Raiser()


def lines(folder, what):
    found = [json.loads(line) for line in (folder / "run_record.jsonl").read_text().splitlines()]
    return [line for line in found if line["what"] == what]


def two_epochs(handler, values=(0.25, 0.25, 0.5, 0.5), extra=(), **kwargs):
    validator = evaluator(values, [handler(iteration_log=False, **kwargs)])
    return trainer([ValidationHandler(1, validator), *extra, handler(kind="training", **kwargs)])


@pytest.fixture
def config(bundle, tmp_path):
    datalist = tmp_path / "datalist.json"
    content = {"name": "polyps", "seed": 3, "ratios": [6, 2, 2], "data_sha256": "ab" * 32}
    content |= {
        "gaze": {"source": "simulated"},
        "training": [{"image": "DOE_JOHN.png"}] * 6,
        "validation": [],
        "test": [],
    }
    datalist.write_text(json.dumps(content))
    path = tmp_path / "out" / "config_20260101_000000.json"
    path.parent.mkdir()
    values = {
        "_meta_": {"version": "0.3.1"},
        "imports": ["$import sys"],
        "network_name": "unet",
        "arm": "positive",
        "seed": 0,
        "learning_rate": 1e-4,
        "image_size": [512, 512],
        "note": "x" * 900,
        "dataset_dir": "/home/doe/secret/kvasir",
        "datalist": str(datalist),
        "tracking_uri": "http://doe:secret@host:5000",
        "loss": {"_target_": "DiceLoss"},
        "network": "$@network_def.to('cpu')",
    }
    path.write_text(json.dumps(values))
    return {"executed_config": path, "datalist": datalist}


def test_trainer_and_validator_share_one_finished_run_with_the_epoch_as_step(handler, runs):
    two_epochs(handler).run()
    client, (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["kind"] == "training"
    history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    assert [(m.step, m.value) for m in history["val_dice"]] == [(1, 0.25), (2, 0.5)]
    assert [m.step for m in history["train_loss"]] == list(range(1, 9))
    assert [m.step for m in history["train_loss_epoch"]] == [1, 2]
    assert history["train_loss_epoch"][0].value == pytest.approx(sum(m.value for m in history["train_loss"][:4]) / 4)
    assert history["lr_group_0"][0].value == pytest.approx(1e-3)
    assert run.data.metrics["best_val_dice"] == 0.5
    assert run.data.metrics["best_val_dice_epoch"] == 2


def test_the_local_record_holds_every_value_that_mlflow_has(handler, runs, tmp_path):
    two_epochs(handler).run()
    client, (run,) = runs()
    record = [(k, m["step"], v) for m in lines(tmp_path / "out", "metrics") for k, v in m["values"].items()]
    stored = [
        (m.key, m.step, m.value) for key in run.data.metrics for m in client.get_metric_history(run.info.run_id, key)
    ]
    assert sorted(record) == sorted(stored)
    assert {k: v for line in lines(tmp_path / "out", "params") for k, v in line["values"].items()} == run.data.params


def test_knobs_data_code_and_machine_are_logged_without_private_paths(handler, runs, config, tmp_path):
    two_epochs(handler, **config, name_knobs=["network_name", "arm", "seed"], untracked=["tracking_uri"]).run()
    client, (run,) = runs()
    params, tags = run.data.params, run.data.tags
    assert run.info.run_name.startswith("unet_positive_seed0_20")
    assert params["learning_rate"] == "0.0001"
    assert params["image_size"] == "[512, 512]"
    assert params["dataset_dir"] == "kvasir"
    assert len(params["note"]) == 500
    assert params["note"].endswith("[cut, 900 characters]")
    assert not {"network", "loss", "imports", "tracking_uri"} & params.keys()
    assert (params["data_name"], params["data_seed"], params["data_ratios"]) == ("polyps", "3", "[6, 2, 2]")
    assert (params["data_sha256"], params["n_training"]) == ("ab" * 32, "6")
    assert tags["gaze_source"] == "simulated"
    assert (tags["bundle"], tags["bundle_version"]) == ("toy_bundle", "0.3.1")
    assert tags["env.torch"] == torch.__version__
    assert tags["env.device"] == "cpu"
    assert tags["git_commit"] == "unknown" or len(tags["git_commit"]) == 40
    saved = Path(client.download_artifacts(run.info.run_id, f"config/{config['executed_config'].name}", str(tmp_path)))
    packages = Path(client.download_artifacts(run.info.run_id, "environment/packages.txt", str(tmp_path)))
    assert f"mlflow=={mlflow.__version__}" in packages.read_text()
    everything = saved.read_text() + json.dumps([params, tags]) + (tmp_path / "out" / "run_record.jsonl").read_text()
    assert not [word for word in ("doe", "secret", "DOE") if word in everything]


def test_overlays_are_stored_under_numbers_and_older_ones_are_not(handler, runs, tmp_path):
    class Writer:
        def attach(self, engine):
            engine.add_event_handler(Events.COMPLETED, self)

        def __call__(self, engine):
            (tmp_path / "out" / "overlays").mkdir(exist_ok=True)
            (tmp_path / "out" / "overlays" / "DOE_JOHN.png").write_bytes(b"new")
            (tmp_path / "out" / "elsewhere.png").write_bytes(b"no")

    (tmp_path / "out" / "overlays").mkdir(parents=True)
    old = tmp_path / "out" / "overlays" / "a.png"
    old.write_bytes(b"old")
    os.utime(old, (1, 1))
    trainer([handler(kind="training"), Writer()]).run()
    client, (run,) = runs()
    assert [item.path for item in client.list_artifacts(run.info.run_id, "overlays")] == ["overlays/0000.png"]
    (line,) = [x for x in lines(tmp_path / "out", "artifact") if x["values"]["name"].startswith("overlays")]
    assert line["values"]["file"] == os.path.join("overlays", "DOE_JOHN.png")


@pytest.mark.parametrize("error", [ValueError("/data/DOE_JOHN.png"), KeyboardInterrupt(), SystemExit(1)])
def test_a_crash_is_failed_with_the_class_alone_and_still_propagates(handler, runs, error):
    engine = two_epochs(handler, extra=[raise_at(Events.ITERATION_COMPLETED(once=3), error)])
    with pytest.raises(type(error)) as caught:
        engine.run()
    assert caught.value is error
    _, (run,) = runs()
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == type(error).__name__
    assert run.data.metrics["train_loss"] >= 0
    assert "DOE" not in str(run.to_dictionary())


def test_a_crash_in_the_validator_fails_the_run_of_the_trainer(handler, runs):
    crash = raise_at(Events.EPOCH_COMPLETED(once=2), RuntimeError("no"))
    validator = evaluator([0.1] * 4, [crash, handler(iteration_log=False)])
    with pytest.raises(RuntimeError):
        trainer([ValidationHandler(1, validator), handler(kind="training")]).run()
    _, (run,) = runs()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "RuntimeError")


def test_a_run_after_a_crash_is_a_run_of_its_own_even_under_one_name(handler, runs):
    with pytest.raises(ValueError, match="no"):
        trainer([raise_at(Events.STARTED, ValueError("no")), handler(kind="training", run_name="a run")]).run()
    trainer([handler(kind="training", run_name="a run")]).run()
    trainer([handler(kind="training", run_name="a run")]).run()
    _, found = runs()
    assert [(r.info.run_name, r.info.status) for r in found] == [
        ("a run", "FAILED"),
        ("a run-2", "FINISHED"),
        ("a run-3", "FINISHED"),
    ]


def test_an_engine_without_data_is_not_called_finished(handler, runs):
    engine = trainer([handler(kind="training")])
    engine.state.epoch_length = 0
    with pytest.warns(UserWarning, match="is empty"):
        engine.run()
    _, (run,) = runs()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "Incomplete")


def test_an_evaluation_points_to_its_training_and_prediction_without_metric_is_inference(handler, runs, tmp_path):
    two_epochs(handler).run()
    training = json.loads((tmp_path / "out" / "run.json").read_text())
    assert json.loads((tmp_path / "ckpt" / "run.json").read_text()) == training
    evaluator([0.75, 0.75], [handler(output_dir=tmp_path / "eval", iteration_log=False)]).run()
    predictor = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=data(2),
        network=torch.nn.Linear(2, 1),
        val_handlers=[handler(output_dir=tmp_path / "eval", iteration_log=False)],
    )
    predictor.run()
    _, found = runs()
    assert [run.data.tags["kind"] for run in found] == ["training", "evaluation", "inference"]
    assert training["run_id"] == found[0].info.run_id
    assert training["status"] == "FINISHED"
    assert found[1].data.tags["training_run_id"] == training["run_id"]
    assert found[1].data.tags["training_run_name"] == training["run_name"]
    assert found[1].data.metrics == {"val_dice": 0.75}
    assert not (tmp_path / "eval" / "run.json").exists()
    assert json.loads((tmp_path / "eval" / "evaluation_run.json").read_text())["run_id"] == found[1].info.run_id


def test_a_resumed_training_continues_its_run_and_remembers_the_best_value(handler, runs, tmp_path, config):
    first = two_epochs(handler, (0.75, 0.75, 0.5, 0.5), [raise_at(Events.EPOCH_COMPLETED(once=2), OSError())], **config)
    with pytest.raises(OSError):  # noqa: PT011
        first.run()
    values = json.loads(config["executed_config"].read_text())
    config["executed_config"].write_text(json.dumps(values | {"learning_rate": 1.0}))
    states = []

    class Watch:
        def attach(self, engine):
            engine.add_event_handler(Events.STARTED, lambda _: states.append(runs()[1][0].info.status))

    two_epochs(handler, (0.6, 0.6, 0.8, 0.8), [Watch()], resume=True, **config).run()
    client, (run,) = runs()
    assert states == ["RUNNING"]
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags
    best = client.get_metric_history(run.info.run_id, "best_val_dice")
    assert [m.value for m in best] == [0.75, pytest.approx(0.8)]
    assert run.data.params["learning_rate"] == "0.0001"
    assert run.data.tags["resumed.learning_rate"] == "1.0"
    assert "resumed.data_name" not in run.data.tags


def test_resume_without_an_earlier_run_starts_one_and_a_deleted_run_is_not_reopened(handler, runs):
    trainer([handler(kind="training", resume=True)]).run()
    client, (first,) = runs()
    client.delete_run(first.info.run_id)
    trainer([handler(kind="training", resume=True)]).run()
    _, (second,) = runs()
    assert second.data.tags["resumed_from_run_id"] == first.info.run_id


def test_a_parent_run_is_taken_from_the_argument_or_the_environment(handler, runs, monkeypatch):
    trainer([handler(kind="training", parent_run_id="abc")]).run()
    monkeypatch.setenv("MLFLOW_PARENT_RUN_ID", "def")
    trainer([handler(kind="training")]).run()
    _, found = runs()
    assert [run.data.tags["mlflow.parentRunId"] for run in found] == ["abc", "def"]


def test_only_rank_zero_tracks(handler, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    trainer([handler(kind="training")]).run()
    assert not (tmp_path / "out").exists()


def test_a_folder_as_store_is_one_clear_error(handler, tmp_path):
    with pytest.raises(ValueError, match="Use a SQLite URI"):
        trainer([handler(kind="training", tracking_uri=str(tmp_path / "mlruns"))]).run()


def test_a_server_that_never_answered_is_an_early_error_or_one_warning(handler, tmp_path, caplog):
    nowhere = f"http://doe:secret@127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionError, match="cannot be used") as caught:
        trainer([handler(kind="training", tracking_uri=nowhere)]).run()
    assert "secret" not in str(caught.value)
    with caplog.at_level(logging.WARNING, "clinbundles.engines"):
        engine = two_epochs(handler, tracking_uri=nowhere, on_unreachable="warn")
        engine.run()
    ours = [r for r in caplog.records if r.name.startswith("clinbundles.engines")]
    assert len(ours) == 1
    assert engine.state.epoch == 2
    assert [m["values"]["val_dice"] for m in lines(tmp_path / "out", "metrics") if "val_dice" in m["values"]] == [
        0.25,
        0.5,
    ]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["run_id"] is None


def test_without_any_client_the_local_record_is_complete(handler, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no driver")

    monkeypatch.setattr(mlflow, "MlflowClient", fail)
    with pytest.raises(ConnectionError, match="--on_unreachable warn"):
        trainer([handler(kind="training")]).run()
    trainer([handler(kind="training", on_unreachable="warn")]).run()
    assert lines(tmp_path / "out", "status")[0]["values"] == {"status": "FINISHED"}
    assert len([m for m in lines(tmp_path / "out", "metrics") if "train_loss" in m["values"]]) == 8


def test_values_that_waited_arrive_when_the_store_is_back(handler, runs, monkeypatch, caplog):
    real = mlflow.MlflowClient.log_batch
    epochs_down = iter([True] * 2)

    def flaky(self, *args, **kwargs):
        if next(epochs_down, False):
            raise OSError("gone")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", flaky)
    two_epochs(handler).run()
    client, (run,) = runs()
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 8
    assert run.data.params["max_epochs"] == "2"
    assert [r.levelname for r in caplog.records if r.name.startswith("clinbundles.engines")].count("WARNING") == 1


def test_sigterm_unwinds_the_training_and_marks_its_run_failed(handler, runs):
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    engine = trainer([handler(kind="training")], epochs=1000)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Terminated) as caught:
        engine.run()
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    _, (run,) = runs()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "Terminated")


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
        "device": "$torch.device('cpu')",
        "samples": "$[{'image': torch.ones(1, 2), 'label': torch.zeros(1, 1)}] * 3",
    }
    steps = [m.step for m in client.get_metric_history(training.info.run_id, "val_mae")]
    assert steps == [1, 2]
    assert len(client.list_artifacts(training.info.run_id, "config")) == 1


def test_the_shipped_settings_give_each_handler_only_arguments_it_has_and_every_key_a_value():
    configs = json.loads((ROOT / "mlflow" / "tracking.json").read_text())["configs"]
    known = inspect.signature(TrackingHandler).parameters.keys()
    for name in ("trainer", "validator", "evaluator"):
        arguments = {key: value for key, value in configs[name].items() if not key.startswith("_")}
        assert arguments.keys() <= known
        references = {str(value)[1:] for value in arguments.values() if str(value).startswith("@")}
        assert references <= configs.keys() | {"bundle_root"}
    assert not list((ROOT / "mlflow").glob("*.py"))


def test_a_clone_may_lie_in_a_folder_with_a_space(handler, tmp_path, template):
    store = tmp_path / "my clone" / "runs" / "mlflow.db"
    store.parent.mkdir(parents=True)
    shutil.copyfile(template, store)
    size = store.stat().st_size
    trainer([handler(kind="training", tracking_uri=f"sqlite:///{store}")]).run()
    assert {p.name for p in store.parent.iterdir()} == {"mlflow.db", "mlruns"}
    assert store.stat().st_size >= size


def test_a_server_killed_mid_run_costs_one_warning_and_no_value(handler, runs, server, tmp_path, caplog):
    wait, kill = server
    address, store = wait()

    class KillServer:
        def attach(self, engine):
            engine.add_event_handler(Events.EPOCH_STARTED(once=3), lambda _: kill())

    tracked = handler(kind="training", tracking_uri=address)
    engine = trainer([KillServer(), tracked], epochs=5)
    began = time.monotonic()
    engine.run()
    assert time.monotonic() - began < 30
    assert engine.state.epoch == 5
    losses = [m["step"] for m in lines(tmp_path / "out", "metrics") if "train_loss" in m["values"]]
    assert losses == list(range(1, 21))
    warnings = [r for r in caplog.records if r.name.startswith("clinbundles.engines") and r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "run_record.jsonl" in warnings[0].getMessage()
    client, (run,) = runs(store)
    assert max(m.step for m in client.get_metric_history(run.info.run_id, "train_loss")) == 8
    assert run.info.run_id == json.loads((tmp_path / "out" / "run.json").read_text())["run_id"]
