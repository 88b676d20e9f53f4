"""Real engines and a real SQLite store: what a run holds."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import mlflow
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator

from clinbundles.engines.weights_card import write_card

# MLflow's queries use an option that SQLAlchemy gives up, and its pools are closed by the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_trainer_and_validator_share_one_finished_run_with_the_epoch_as_step(runs, two_epochs):
    two_epochs().run()
    client, (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["kind"] == "training"
    history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    assert [(m.step, m.value) for m in history["val_dice"]] == [(1, 0.25), (2, 0.5)]
    iterations = history["train_loss_iteration"]
    assert [m.step for m in iterations] == list(range(1, 9))
    assert [m.step for m in history["train_loss"]] == [1, 2]
    assert history["train_loss"][0].value == pytest.approx(sum(m.value for m in iterations[:4]) / 4)
    assert history["lr_group_0"][0].value == pytest.approx(1e-3)
    assert run.data.metrics["best_val_dice"] == 0.5
    assert run.data.metrics["best_val_dice_epoch"] == 2


def test_the_local_record_holds_every_value_that_mlflow_has(runs, tmp_path, two_epochs, lines):
    two_epochs().run()
    client, (run,) = runs()
    record = [(k, m["step"], v) for m in lines(tmp_path / "out", "metrics") for k, v in m["values"].items()]
    stored = [
        (m.key, m.step, m.value) for key in run.data.metrics for m in client.get_metric_history(run.info.run_id, key)
    ]
    assert sorted(record) == sorted(stored)
    assert {k: v for line in lines(tmp_path / "out", "params") for k, v in line["values"].items()} == run.data.params


def test_knobs_data_code_and_machine_are_logged_without_private_paths(runs, config, tmp_path, two_epochs):
    two_epochs(**config, name_knobs=["network_name", "arm", "seed"], untracked=["tracking_uri"]).run()
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


def test_a_run_that_starts_from_weights_has_them_in_name_parameter_and_tag(runs, config, tmp_path, two_epochs):
    weights = tmp_path / "DOE" / "model.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    executed = config["executed_config"]
    executed.write_text(json.dumps(json.loads(executed.read_text()) | {"initial_weights": str(weights)}))
    two_epochs(**config, name_knobs=["seed"]).run()
    _, (run,) = runs()
    digits = hashlib.sha256(b"weights").hexdigest()
    assert run.data.params["initial_weights"] == run.data.tags["initial_weights"] == f"model.pt, sha256 {digits[:12]}"
    assert f"_seed0_from-{digits[:6]}_20" in run.info.run_name


def test_an_evaluation_is_called_after_the_weights_that_its_training_started_from(runs, tmp_path, evaluator, handler):
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    write_card(weights, {"initial_weights": [{"name": "first.pt", "sha256": "ab" * 32}]})
    evaluator([0.75] * 2, [handler(output_dir=tmp_path / "eval", ckpt_path=weights)]).run()
    _, (run,) = runs()
    assert re.search(r"^evaluation_\w+_from-ababab_20", run.info.run_name)
    assert run.data.params["initial_weights"] == "first.pt, sha256 abababababab"


def test_overlays_are_stored_under_numbers_and_older_ones_are_not(handler, runs, tmp_path, trainer, lines):
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


def test_an_evaluation_points_to_its_training_and_prediction_without_metric_is_inference(
    handler, runs, tmp_path, evaluator, two_epochs, data
):
    two_epochs().run()
    training = json.loads((tmp_path / "out" / "run.json").read_text())
    assert json.loads((tmp_path / "ckpt" / "run.json").read_text()) == training
    weights = {"ckpt_path": tmp_path / "ckpt" / "model.pt"}
    evaluator([0.75, 0.75], [handler(output_dir=tmp_path / "eval", iteration_log=False, **weights)]).run()
    predictor = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=data(2),
        network=torch.nn.Linear(2, 1),
        val_handlers=[handler(output_dir=tmp_path / "eval", iteration_log=False)],
    )
    predictor.run()
    _, all_runs = runs()
    assert [run.data.tags["kind"] for run in all_runs] == ["training", "evaluation", "inference"]
    assert training["run_id"] == all_runs[0].info.run_id
    assert training["status"] == "FINISHED"
    assert all_runs[1].data.tags["training_run_id"] == training["run_id"]
    assert all_runs[1].data.tags["training_run_name"] == training["run_name"]
    assert all_runs[1].data.metrics == {"val_dice": 0.75}
    assert not (tmp_path / "eval" / "run.json").exists()
    assert json.loads((tmp_path / "eval" / "evaluation_run.json").read_text())["run_id"] == all_runs[1].info.run_id


def test_an_evaluation_has_the_options_that_its_weights_were_trained_with_and_other_weights_have_not(
    handler, runs, config, tmp_path, evaluator, two_epochs
):
    weights, file = tmp_path / "ckpt" / "model.pt", config["executed_config"]
    values = json.loads(file.read_text()) | {"arm": "original", "training_options": {"arm": "@arm"}}
    file.write_text(json.dumps(values))
    weights.parent.mkdir()
    torch.save({"weight": torch.ones(1)}, weights)
    two_epochs(**config).run()
    file.write_text(json.dumps(values | {"arm": "positive"}))  # the default, where nobody names it again
    judge = {"iteration_log": False, "ckpt_path": weights, "name_knobs": ["arm"], **config}
    evaluator([0.75] * 2, [handler(output_dir=tmp_path / "same", **judge)]).run()
    torch.save({"weight": torch.zeros(1)}, weights)
    evaluator([0.75] * 2, [handler(output_dir=tmp_path / "other", **judge)]).run()
    trained, same, other = runs()[1]
    assert [run.data.params["arm"] for run in (trained, same, other)] == ["original", "original", "positive"]
    assert "original" in same.info.run_name
    assert "original" not in other.info.run_name


def test_an_evaluation_has_no_options_of_training_but_those_on_the_card_of_its_weights(
    handler, runs, config, tmp_path, evaluator
):
    file, weights = config["executed_config"], tmp_path / "model.pt"
    more = {"max_epochs": 200, "batch": 4, "run": ["$@network.evaluate(@batch)"], "learning_rate": 0.1, "arm": "all"}
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    torch.save({"weight": torch.ones(1)}, weights)
    judge = {"iteration_log": False, "ckpt_path": weights, **config}
    evaluator([0.75] * 2, [handler(output_dir=tmp_path / "none", **judge)]).run()
    write_card(weights, {"options": {"arm": "original"}})
    evaluator([0.75] * 2, [handler(output_dir=tmp_path / "card", **judge)]).run()
    without, with_card = (run.data.params for run in runs()[1])
    assert without["batch"] == with_card["batch"] == "4"
    assert not without.keys() & {"max_epochs", "learning_rate", "arm"}
    assert not with_card.keys() & {"max_epochs", "learning_rate"}
    assert with_card["arm"] == "original"


def test_a_run_says_its_name_and_what_shows_it(handler, runs, uri, evaluator, capsys):
    evaluator([0.75, 0.75], [handler(run_name="mine")]).run()
    database = uri.removeprefix("sqlite:///")
    shown = f"in {database}: mlflow ui --backend-store-uri {uri} shows it"
    assert [line for line in capsys.readouterr().out.splitlines() if "mlflow" in line] == [f"tracked as mine {shown}"]
    evaluator([0.75, 0.75], [handler(run_name="mine")]).run()
    assert f"tracked as mine-2 {shown}" in capsys.readouterr().out


def test_metrics_of_an_evaluation_are_called_after_its_split_and_best_values_are_of_validations(
    handler, runs, config, tmp_path, evaluator, two_epochs
):
    two_epochs(**config).run()
    values = json.loads(config["executed_config"].read_text())
    names = {}
    for split in ("test", "validation", "training"):
        config["executed_config"].write_text(json.dumps(values | {"split": split}))
        evaluator([0.75] * 2, [handler(output_dir=tmp_path / split, iteration_log=False, **config)]).run()
        names[split] = set(runs()[1][-1].data.metrics)
    assert names == {"test": {"test_dice"}, "validation": {"val_dice"}, "training": {"train_dice"}}
    assert {key for key in runs()[1][0].data.metrics if key.startswith("best")} == {
        "best_val_dice",
        "best_val_dice_epoch",
    }


def test_a_key_metric_of_the_training_data_has_no_best_value(handler, runs, trainer):
    engine = trainer([handler(kind="training")])
    engine.state.key_metric_name = "train_dice"
    engine.add_event_handler(Events.EPOCH_STARTED, lambda _: engine.state.metrics.update(train_dice=0.5))
    engine.run()
    _, (run,) = runs()
    assert run.data.metrics["train_dice"] == 0.5
    assert not [key for key in run.data.metrics if key.startswith("best")]


def test_tags_of_ones_own_the_network_and_the_hardware_are_tags(handler, runs, trainer, config):
    trainer([handler(kind="training", run_tags={"scale": "cpu", "kind": "mine"}, **config)]).run()
    tags = runs()[1][0].data.tags
    assert (tags["scale"], tags["kind"], tags["network"]) == ("cpu", "mine", "unet")
    assert tags["hardware"] == tags["env.cpu"]
    assert len(tags["split_sha256"]) == 64
    assert tags["mlflow.source.name"]
    assert tags["mlflow.user"]


def test_the_machine_is_measured_if_asked_for(handler, runs, trainer, monkeypatch):
    monkeypatch.setattr("clinbundles.engines.tracking.machine.INTERVAL_S", 0.0)
    trainer([handler(kind="training", system_metrics=True)]).run()
    client, (run,) = runs()
    history = client.get_metric_history(run.info.run_id, "system/disk_usage_percentage")
    assert [m.step for m in history] == list(range(1, 10))  # eight iterations, and the end
    trainer([handler(kind="training")]).run()
    assert not [key for key in runs()[1][1].data.metrics if key.startswith("system")]


def test_a_parent_run_is_taken_from_the_argument_or_the_environment(handler, runs, monkeypatch, trainer):
    trainer([handler(kind="training", parent_run_id="abc")]).run()
    monkeypatch.setenv("MLFLOW_PARENT_RUN_ID", "def")
    trainer([handler(kind="training")]).run()
    _, all_runs = runs()
    assert [run.data.tags["mlflow.parentRunId"] for run in all_runs] == ["abc", "def"]


def test_only_rank_zero_tracks(handler, monkeypatch, tmp_path, trainer):
    monkeypatch.setenv("RANK", "1")
    trainer([handler(kind="training")]).run()
    assert not (tmp_path / "out").exists()


def test_a_clone_may_lie_in_a_folder_with_a_space(handler, tmp_path, template, trainer):
    store = tmp_path / "my clone" / "runs" / "mlflow.db"
    store.parent.mkdir(parents=True)
    shutil.copyfile(template, store)
    size = store.stat().st_size
    trainer([handler(kind="training", tracking_uri=f"sqlite:///{store}")]).run()
    assert {p.name for p in store.parent.iterdir()} == {"mlflow.db", ".mlflow.db.lock", "mlruns"}
    assert store.stat().st_size >= size
