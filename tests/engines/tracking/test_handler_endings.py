"""Real engines and a real SQLite store: how a run ends, and how it goes on."""

import json
import os
import signal

import pytest
from ignite.engine import Events
from monai.handlers import ValidationHandler

from clinbundles.engines.tracking.handler import Terminated

# MLflow's queries use an option that SQLAlchemy gives up, and its pools are closed by the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("error", [ValueError("/data/DOE_JOHN.png"), KeyboardInterrupt(), SystemExit(1)])
def test_a_crash_is_failed_with_the_class_alone_and_still_propagates(runs, error, two_epochs, raise_at):
    engine = two_epochs(extra=[raise_at(Events.ITERATION_COMPLETED(once=3), error)])
    with pytest.raises(type(error)) as caught:
        engine.run()
    assert caught.value is error
    _, (run,) = runs()
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == type(error).__name__
    assert run.data.metrics["train_loss_iteration"] >= 0
    assert "DOE" not in str(run.to_dictionary())


def test_a_crash_in_the_validator_fails_the_run_of_the_trainer(handler, runs, trainer, evaluator, raise_at):
    crash = raise_at(Events.EPOCH_COMPLETED(once=2), RuntimeError("no"))
    validator = evaluator([0.1] * 4, [crash, handler(iteration_log=False)])
    with pytest.raises(RuntimeError):
        trainer([ValidationHandler(1, validator), handler(kind="training")]).run()
    _, (run,) = runs()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "RuntimeError")


def test_a_run_after_a_crash_is_a_run_of_its_own_even_under_one_name(handler, runs, trainer, raise_at):
    with pytest.raises(ValueError, match="no"):
        trainer([raise_at(Events.STARTED, ValueError("no")), handler(kind="training", run_name="a run")]).run()
    trainer([handler(kind="training", run_name="a run")]).run()
    trainer([handler(kind="training", run_name="a run")]).run()
    _, all_runs = runs()
    assert [(r.info.run_name, r.info.status) for r in all_runs] == [
        ("a run", "FAILED"),
        ("a run-2", "FINISHED"),
        ("a run-3", "FINISHED"),
    ]


def test_an_engine_without_data_is_not_called_finished(handler, runs, trainer):
    engine = trainer([handler(kind="training")])
    engine.state.epoch_length = 0
    with pytest.warns(UserWarning, match="is empty"):
        engine.run()
    _, (run,) = runs()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "Incomplete")


def test_a_resumed_training_continues_its_run_and_remembers_the_best_value(
    runs, tmp_path, config, two_epochs, raise_at
):
    first = two_epochs((0.75, 0.75, 0.5, 0.5), [raise_at(Events.EPOCH_COMPLETED(once=2), OSError())], **config)
    with pytest.raises(OSError):  # noqa: PT011
        first.run()
    values = json.loads(config["executed_config"].read_text())
    config["executed_config"].write_text(json.dumps(values | {"learning_rate": 1.0}))
    states = []

    class Watch:
        def attach(self, engine):
            engine.add_event_handler(Events.STARTED, lambda _: states.append(runs()[1][0].info.status))

    two_epochs((0.6, 0.6, 0.8, 0.8), [Watch()], resume=True, **config).run()
    client, (run,) = runs()
    assert states == ["RUNNING"]
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags
    best = client.get_metric_history(run.info.run_id, "best_val_dice")
    assert [m.value for m in best] == [0.75, pytest.approx(0.8)]
    assert run.data.params["learning_rate"] == "0.0001"
    assert run.data.tags["resumed.learning_rate"] == "1.0"
    assert "resumed.data_name" not in run.data.tags


def test_a_resumed_training_that_is_not_told_its_initial_weights_again_has_them_still(
    runs, tmp_path, config, two_epochs
):
    (tmp_path / "first.pt").write_bytes(b"weights")
    executed, values = config["executed_config"], json.loads(config["executed_config"].read_text())
    for start, resume in ((str(tmp_path / "first.pt"), False), (None, True)):
        executed.write_text(json.dumps(values | {"initial_weights": start, "encoder_weights": start}))
        two_epochs((0.6, 0.6, 0.8, 0.8), resume=resume, **config).run()
    _, (run,) = runs()
    assert run.data.params["initial_weights"] == run.data.tags["initial_weights"]
    assert run.data.tags["initial_weights"].startswith("first.pt, sha256 ")
    assert not [name for name in run.data.tags if name.startswith("resumed.")]


def test_resume_without_an_earlier_run_starts_one_and_a_deleted_run_is_not_reopened(handler, runs, trainer):
    trainer([handler(kind="training", resume=True)]).run()
    client, (first,) = runs()
    client.delete_run(first.info.run_id)
    trainer([handler(kind="training", resume=True)]).run()
    _, (second,) = runs()
    assert second.data.tags["resumed_from_run_id"] == first.info.run_id


def test_sigterm_unwinds_the_training_and_marks_its_run_failed(handler, runs, trainer):
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    engine = trainer([handler(kind="training")], epochs=1000)
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Terminated) as caught:
        engine.run()
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    _, (run,) = runs()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "Terminated")
