"""The delivery queue beside a client that fails on demand."""

import json
import logging
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from clinbundles.engines.tracking import record as run_record
from clinbundles.engines.tracking.record import RunRecord


class Client:
    """Keeps what it is sent; `gone` and `refuse` make it fail."""

    def __init__(self):
        self.calls, self.values, self.batches = 0, {}, []
        self.gone, self.refuse = False, set()

    def log_batch(self, run_id, *, metrics, params, tags):
        self.calls += 1
        if self.gone:
            raise OSError("gone")
        sent = [("metric", m.key, m.value) for m in metrics]
        sent += [(kind, x.key, x.value) for kind, group in (("param", params), ("tag", tags)) for x in group]
        if any((kind, key) in self.refuse for kind, key, _ in sent):
            raise MlflowException("no", error_code=INVALID_PARAMETER_VALUE)
        self.batches.append(len(sent))
        self.values |= {(kind, key): value for kind, key, value in sent}

    def get_run(self, run_id):
        return SimpleNamespace(info=SimpleNamespace(lifecycle_stage="active"))

    def set_terminated(self, run_id, status):
        self.status = status


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def record(tmp_path, client):
    return RunRecord(tmp_path / "record.jsonl", lambda: (client, "id"))


def lines(record):
    return [json.loads(line) for line in record.path.read_text().splitlines()]


def test_values_wait_while_mlflow_is_gone_and_arrive_after_one_warning(record, client, monkeypatch, caplog):
    monkeypatch.setattr(run_record, "FIRST_PAUSE_S", 0.0)
    record._pause = 0.0
    client.gone = True
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            record.metrics({"loss": float(step), f"loss_{step}": 1.0}, step=step, unit="epoch")
            record.send()
    client.gone = False
    record.send(status="FINISHED")
    assert len(caplog.records) == 1
    assert set(client.values) == {("metric", key) for key in ("loss", "loss_0", "loss_1", "loss_2")}
    assert client.status == "FINISHED"


def test_a_lost_mlflow_is_left_alone_for_a_time_that_doubles_but_the_end_is_always_tried(record, client, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(run_record.time, "monotonic", lambda: now[0])
    client.gone = True
    record.texts("tags", {"a": "b"})
    attempts = []
    for second in range(200):
        now[0], before = float(second), client.calls
        record.send()
        attempts += [second] * (client.calls - before)
    assert attempts == [0, 30, 90]
    client.gone = False
    record.send(status="FAILED")
    assert client.values == {("tag", "a"): "b"}


def test_a_parameter_that_changed_becomes_a_tag_and_other_refused_values_are_named(record, client, caplog):
    client.refuse = {("param", "lr"), ("metric", "odd")}
    record.texts("params", {"lr": 0.1, "seed": 1})
    record.metrics({"odd": 1.0, "even": 2.0}, step=1, unit="epoch")
    record.send()
    assert client.values == {("param", "seed"): "1", ("tag", "resumed.lr"): "0.1", ("metric", "even"): 2.0}
    assert "'odd'" in caplog.text


def test_requests_are_small_values_are_cut_and_the_record_is_strict_json(record, client):
    record.texts("params", {f"p{i}": i for i in range(250)} | {"long": "x" * 900})
    record.metrics({"mAP@50": float("nan")}, step=1, unit="epoch")
    record.send()
    assert max(client.batches) == 100
    assert len(client.values["param", "long"]) == 500
    assert client.values["param", "long"].endswith("[cut, 900 characters]")
    assert lines(record)[1]["values"] == {"mAP_50": "nan"}


def test_a_full_artifact_store_does_not_keep_a_run_from_ending(record, client):
    def fail(client, run_id):
        raise OSError("full")

    record.file("a.png", fail, file="original.png")
    record.send(status="FINISHED")
    assert client.status == "FINISHED"
    assert lines(record)[0]["values"] == {"name": "a.png", "file": "original.png"}
