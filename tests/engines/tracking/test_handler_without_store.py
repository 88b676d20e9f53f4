"""Real engines without a store, or with one that is lost: a real MLflow server is killed."""

import contextlib
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

import mlflow
import pytest
from ignite.engine import Events

# MLflow's queries use an option that SQLAlchemy gives up, and its pools are closed by the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


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


def test_a_folder_as_store_is_one_clear_error(handler, tmp_path, trainer):
    with pytest.raises(ValueError, match="Use a SQLite URI"):
        trainer([handler(kind="training", tracking_uri=str(tmp_path / "mlruns"))]).run()


def test_a_server_that_never_answered_is_an_early_error_or_one_warning(
    handler, tmp_path, caplog, trainer, two_epochs, lines
):
    nowhere = f"http://doe:secret@127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionError, match="cannot be used") as caught:
        trainer([handler(kind="training", tracking_uri=nowhere)]).run()
    assert "secret" not in str(caught.value)
    with caplog.at_level(logging.WARNING, "clinbundles.engines"):
        engine = two_epochs(tracking_uri=nowhere, on_unreachable="warn")
        engine.run()
    ours = [r for r in caplog.records if r.name.startswith("clinbundles.engines")]
    assert len(ours) == 1
    assert engine.state.epoch == 2
    assert [m["values"]["val_dice"] for m in lines(tmp_path / "out", "metrics") if "val_dice" in m["values"]] == [
        0.25,
        0.5,
    ]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["run_id"] is None


def test_a_deleted_experiment_is_an_early_error_or_one_warning_and_a_training(handler, uri, caplog, trainer):
    client = mlflow.MlflowClient(uri)
    client.delete_experiment(client.create_experiment("toy_bundle"))
    with pytest.raises(
        ConnectionError, match=r"toy_bundle was deleted .* With --on_unreachable warn, train without it"
    ):
        trainer([handler(kind="training")]).run()
    engine = trainer([handler(kind="training", on_unreachable="warn")])
    with caplog.at_level(logging.WARNING, "clinbundles.engines"):
        engine.run()
    assert engine.state.epoch == 2
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("clinbundles.engines")]
    assert len(ours) == 1
    assert "was deleted" in ours[0]


def test_without_any_client_the_local_record_is_complete(handler, tmp_path, monkeypatch, trainer, lines):
    def fail(*args, **kwargs):
        raise OSError("no driver")

    monkeypatch.setattr(mlflow, "MlflowClient", fail)
    with pytest.raises(ConnectionError, match="--on_unreachable warn"):
        trainer([handler(kind="training")]).run()
    trainer([handler(kind="training", on_unreachable="warn")]).run()
    assert lines(tmp_path / "out", "status")[0]["values"] == {"status": "FINISHED"}
    assert len([m for m in lines(tmp_path / "out", "metrics") if "train_loss_iteration" in m["values"]]) == 8


def test_values_that_waited_arrive_when_the_store_is_back(runs, monkeypatch, caplog, two_epochs):
    real = mlflow.MlflowClient.log_batch
    epochs_down = iter([True] * 2)

    def flaky(self, *args, **kwargs):
        if next(epochs_down, False):
            raise OSError("gone")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", flaky)
    two_epochs().run()
    client, (run,) = runs()
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "train_loss_iteration")) == 8
    assert run.data.params["max_epochs"] == "2"
    assert [r.levelname for r in caplog.records if r.name.startswith("clinbundles.engines")].count("WARNING") == 1


def test_a_server_takes_data_sets_weights_and_their_registration(
    handler, runs, server, tmp_path, caplog, trainer, config
):
    wait, _ = server
    address, store = wait()
    (tmp_path / "ckpt").mkdir()
    engine = trainer([handler(kind="training", tracking_uri=address, register="toys", **config)])
    engine.add_event_handler(Events.STARTED, lambda _: (tmp_path / "ckpt" / "model.pt").write_bytes(b"weights"))
    with caplog.at_level(logging.WARNING, "clinbundles.engines"):
        engine.run()
    assert [r.getMessage() for r in caplog.records if r.name.startswith("clinbundles.engines")] == []
    client, all_runs = runs(store)
    run = next(
        run for run in all_runs if run.info.run_id == json.loads((tmp_path / "out" / "run.json").read_text())["run_id"]
    )
    assert [x.dataset.name for x in run.inputs.dataset_inputs] == ["polyps, training"]
    assert [version.name for version in client.search_model_versions(f"run_id = '{run.info.run_id}'")] == ["toys"]
    client.delete_run(run.info.run_id)


def test_a_server_killed_mid_run_costs_one_warning_and_no_value(
    handler, runs, server, tmp_path, caplog, trainer, lines
):
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
    losses = [m["step"] for m in lines(tmp_path / "out", "metrics") if "train_loss_iteration" in m["values"]]
    assert losses == list(range(1, 21))
    warnings = [r for r in caplog.records if r.name.startswith("clinbundles.engines") and r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "run_record.jsonl" in warnings[0].getMessage()
    client, (run,) = runs(store)
    assert max(m.step for m in client.get_metric_history(run.info.run_id, "train_loss_iteration")) == 8
    assert run.info.run_id == json.loads((tmp_path / "out" / "run.json").read_text())["run_id"]
