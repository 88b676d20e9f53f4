"""A bundle, engines and a store to track them in."""

import json
import os
import shutil

import mlflow
import pytest
import torch
from ignite.metrics import Average
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import StatsHandler, ValidationHandler

from clinbundles.engines.tracking import record as run_record
from clinbundles.engines.tracking.handler import TrackingHandler


@pytest.fixture(autouse=True)
def settings_of_the_tests_alone(monkeypatch):
    """Take the variables that direct MLflow out of the environment, and let it fail fast."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_PARENT_RUN_ID", "MLFLOW_HTTP_REQUEST_TIMEOUT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def template(request, tmp_path_factory):
    """An empty MLflow database; making one takes seconds, so it is kept between test runs."""
    database = request.config.cache.mkdir("mlflow") / f"{mlflow.__version__}.db"
    if not database.is_file():
        path = tmp_path_factory.mktemp("template") / "mlflow.db"
        client = mlflow.MlflowClient(f"sqlite:///{path}")
        client.search_experiments()
        client._tracking_client.store._dispose_engine()
        shutil.copyfile(path, database.with_suffix(f".{os.getpid()}"))
        os.replace(database.with_suffix(f".{os.getpid()}"), database)
    return database


@pytest.fixture
def uri(tmp_path, template):
    """An empty store for one test."""
    shutil.copyfile(template, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def bundle(tmp_path):
    """The folder of a bundle that has nothing but a version."""
    root = tmp_path / "toy_bundle"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "metadata.json").write_text('{"version": "0.3.1", "name": "toy"}')
    return root


@pytest.fixture
def handler(bundle, tmp_path, uri, monkeypatch):
    """Make a handler for the bundle, which tries again at once after a failure."""
    monkeypatch.setattr(run_record, "FIRST_PAUSE_S", 0.0)

    def make(**kwargs):
        settings = {"tracking_uri": uri, "output_dir": tmp_path / "out", "ckpt_dir": tmp_path / "ckpt"}
        return TrackingHandler(**{"bundle_root": bundle, **settings, **kwargs})

    return make


@pytest.fixture
def runs(uri):
    """Find a client and the bundle's runs, in the order in which they began."""

    def find(store=uri):
        client = mlflow.MlflowClient(store)
        experiment = client.get_experiment_by_name("toy_bundle")
        return client, client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])

    return find


@pytest.fixture
def data():
    """Make items of two numbers each."""

    def make(n=4):
        return [{"image": torch.full((1, 2), float(i)), "label": torch.zeros(1, 1)} for i in range(n)]

    return make


@pytest.fixture
def evaluator(data):
    """Make an evaluator whose key metric takes the given values, one a run."""

    def make(values, handlers=()):
        results = iter(values)
        return SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=data(2),
            network=torch.nn.Linear(2, 1),
            key_val_metric={"val_dice": Average(output_transform=lambda _: torch.tensor(next(results)))},
            val_handlers=[StatsHandler(output_transform=lambda _: None), *handlers],
        )

    return make


@pytest.fixture
def trainer(data):
    """Make a trainer of four iterations an epoch."""

    def make(handlers=(), epochs=2):
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

    return make


@pytest.fixture
def two_epochs(handler, evaluator, trainer):
    """Make a tracked trainer with a tracked validator inside."""

    def make(values=(0.25, 0.25, 0.5, 0.5), extra=(), **kwargs):
        validator = evaluator(values, [handler(iteration_log=False, **kwargs)])
        return trainer([ValidationHandler(1, validator), *extra, handler(kind="training", **kwargs)])

    return make


@pytest.fixture
def raise_at():
    """Make a handler that raises an error at an event."""

    def make(event, error):
        class Raiser:
            def attach(self, engine):
                engine.add_event_handler(event, self)

            def __call__(self, engine):
                raise error

        return Raiser()

    return make


@pytest.fixture
def lines():
    """Read the lines of one kind from the local record in a folder."""

    def read(folder, what):
        record = [json.loads(line) for line in (folder / "run_record.jsonl").read_text().splitlines()]
        return [line for line in record if line["what"] == what]

    return read


@pytest.fixture
def config(bundle, tmp_path):
    """An executed config and a datalist, both full of what must stay private."""
    datalist = tmp_path / "datalist.json"
    content = {"name": "polyps", "seed": 3, "ratios": [6, 2, 2], "data_sha256": "ab" * 32}
    content |= {"data_sha256_of": "contents in any order"}
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
