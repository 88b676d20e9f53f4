import threading
import time

import pytest

from clinbundles.engines.tracking.deadline import seconds_of, within


def test_a_call_that_takes_too_long_is_given_up_at_its_deadline():
    end = threading.Event()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no whole answer within 0\.2 s"):
        within(0.2, end.wait)
    assert 0.2 <= time.monotonic() - began < 5
    end.set()


def test_a_call_in_time_gives_its_result_or_its_error():
    assert within(60, lambda: 3) == 3
    assert within(None, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 / 0)


def test_a_server_has_a_deadline_and_a_database_has_none(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    assert seconds_of("https://host:5000") == 12
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    assert seconds_of("http://host:5000") == 30
    assert seconds_of("sqlite:////runs/mlflow.db") is None
