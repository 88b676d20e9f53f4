"""The record of a run: kept in a file beside it, and delivered to MLflow as soon as MLflow takes it."""

from __future__ import annotations

import functools
import json
import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import mlflow
from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from .deadline import within
from .store import UnusableStoreError, refused

logger = logging.getLogger(__name__)

VALUE_LIMIT = 500  # characters of a parameter that every MLflow server accepts
BATCH = 100  # parameters that MLflow takes in one request
FIRST_PAUSE_S = 30.0  # after a failure; it doubles up to the longest
LONGEST_PAUSE_S = 600.0


class RunRecord:
    """Write parameters, tags, metrics and files to a JSON-lines file and send them to MLflow.

    Sending never raises: after a failure the values wait, and later calls try again, less and less often.

    Args:
        path: the local record, one JSON object a line, appended.
        connect: gives a client and the id of a run that it made or reopened; called until it succeeds.
        check: raises what is wrong with the store that the run was made in, before each sending.
        seconds: the deadline of each call; None for none.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], tuple[mlflow.MlflowClient, str]],
        *,
        check: Callable[[], None] = lambda: None,
        seconds: float | None = None,
    ) -> None:
        self.path = path
        self.run_id: str | None = None
        self._check, self._seconds = check, seconds
        self._connect = connect
        self._client: mlflow.MlflowClient | None = None
        self._is_lost = False
        self._pause = FIRST_PAUSE_S
        self._not_before = 0.0
        self._pending: list[Metric | Param | RunTag] = []
        self._calls: list[tuple[str, Callable[[mlflow.MlflowClient, str], Any]]] = []

    def write(self, what: str, values: Mapping[str, Any], **more: Any) -> None:
        """Append one line to the local record."""
        # JSON has no word for a number that is not finite.
        strict = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "run_id": self.run_id, "what": what, **more}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"values": strict}, allow_nan=False) + "\n")

    def texts(self, what: Literal["params", "tags"], values: Mapping[str, Any]) -> None:
        """Log parameters or tags; a long value is cut, and says so."""
        texts = {key: _cut(str(value)) for key, value in values.items()}
        self.write(what, texts)
        entity: type[Param | RunTag] = Param if what == "params" else RunTag
        self._pending += [entity(key, text) for key, text in texts.items()]

    def metrics(self, values: Mapping[str, float], *, step: int, unit: str) -> None:
        """Log numbers at a step, counted in `unit` (epoch or iteration)."""
        if values:
            values = {re.sub(r"[^\w./: -]", "_", key): value for key, value in values.items()}  # what MLflow takes
            self.write("metrics", values, step=step, unit=unit)
            now = int(time.time() * 1000)
            self._pending += [Metric(key, value, now, step) for key, value in values.items()]

    def file(self, name: str, send: Callable[[mlflow.MlflowClient, str], Any], **origin: Any) -> None:
        """Log an artifact called `name`, which `send(client, run_id)` uploads; `origin` stays in the local record."""
        self.call("artifact", {"name": name, **origin}, send)

    def call(self, what: str, values: Mapping[str, Any], send: Callable[[mlflow.MlflowClient, str], Any]) -> None:
        """Log what is no value of the run itself, such as its data, by `send(client, run_id)`."""
        self.write(what, values)
        self._calls.append((str(values.get("name", what)), send))

    def send(self, *, status: str | None = None) -> None:
        """Send what waits, unless MLflow was lost a short while ago; a `status` ends the run, and is always tried."""
        if status is None and time.monotonic() < self._not_before:
            return
        try:
            self.open()
            self._send_all(status)
        except Exception as error:  # whatever a client, a proxy or a driver raises, the training goes on
            if not self._is_lost:
                text = "MLflow does not answer (%s)"
                text, reason = ("%s", error) if isinstance(error, UnusableStoreError) else (text, type(error).__name__)
                text += ". The run goes on; %s has all values, sent when it is back."
                logger.warning(text, str(reason).rstrip("."), self.path)
            self.wait()
        else:
            self._is_lost, self._pause = False, FIRST_PAUSE_S

    def open(self) -> None:
        """Make or reopen the MLflow run, if that is not done, and raise what goes wrong."""
        if self.run_id is None:
            self._client, self.run_id = self._connect()

    def wait(self) -> None:
        """Take the server for lost, and leave it alone for a while that doubles each time."""
        self._is_lost = True
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)

    def _send_all(self, status: str | None) -> None:
        assert self._client is not None
        assert self.run_id is not None
        client, run_id = self._client, self.run_id
        self._check()
        while self._pending:
            self._deliver(client, run_id, self._pending[:BATCH])
            del self._pending[:BATCH]
        if status is not None:  # before the files: a run can end although its artifacts' store is full
            within(self._seconds, lambda: client.set_terminated(run_id, status))
        while self._calls:
            name, send = self._calls[0]
            try:
                within(self._seconds, functools.partial(send, client, run_id))
            except MlflowException as error:
                if not refused(error):
                    raise
                logger.warning("MLflow refused %s (%s); it is in %s.", name, error.error_code, self.path)
            del self._calls[0]

    def _deliver(self, client: mlflow.MlflowClient, run_id: str, batch: Sequence[Metric | Param | RunTag]) -> None:
        try:
            within(
                self._seconds,
                lambda: client.log_batch(
                    run_id,
                    metrics=[item for item in batch if isinstance(item, Metric)],
                    params=[item for item in batch if isinstance(item, Param)],
                    tags=[item for item in batch if isinstance(item, RunTag)],
                ),
            )
        except MlflowException as error:
            if not refused(error):
                raise
            run = within(self._seconds, lambda: client.get_run(run_id))
            if run.info.lifecycle_stage == LifecycleStage.DELETED:
                text = f"The run {run.info.run_name} was deleted in MLflow."
                raise UnusableStoreError(text) from None
            if len(batch) > 1:  # find the one that is not wanted
                for item in batch:
                    self._deliver(client, run_id, [item])
            elif isinstance(batch[0], Param):  # a parameter cannot change, but a resumed run may have changed it
                self._deliver(client, run_id, [RunTag(f"resumed.{batch[0].key}", batch[0].value)])
            else:
                logger.warning("MLflow refused the value %r; it is in %s.", batch[0].key, self.path)


def _cut(text: str) -> str:
    note = f" … [cut, {len(text)} characters]"
    return text if len(text) <= VALUE_LIMIT else text[: VALUE_LIMIT - len(note)] + note
