"""What a run has to say: kept in a file beside it, and delivered to MLflow as soon as MLflow takes it."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

logger = logging.getLogger(__name__)

VALUE_LIMIT = 500  # characters of a parameter that every MLflow server accepts
BATCH = 100  # parameters that MLflow takes in one request
SEND_EVERY_S = 5.0
FIRST_PAUSE_S = 30.0  # after a failure; it doubles up to the longest
LONGEST_PAUSE_S = 600.0


class RunRecord:
    """Takes parameters, tags, metrics and files; writes each to a JSON-lines file and sends it to MLflow.

    Sending never raises: after a failure the values wait, and later calls try again, less and less often.

    Args:
        path: the local record, one JSON object a line, appended.
        connect: makes (or reopens) the MLflow run and returns its id; called until it succeeds.
        client: the MLflow client, None where there is none to be had.
    """

    def __init__(self, path: Path, *, connect: Callable[[], str], client: mlflow.MlflowClient | None) -> None:
        self.path = path
        self.run_id: str | None = None
        self._connect = connect
        self._client = client
        self._lost = False
        self._pause = FIRST_PAUSE_S
        self._not_before = 0.0
        self._sent_at = time.monotonic()
        self._pending: list[Metric | Param | RunTag] = []
        self._files: list[Callable[[mlflow.MlflowClient, str], None]] = []

    def write(self, what: str, values: Mapping[str, Any], **more: Any) -> None:
        """Append one line to the local record."""
        # JSON has no word for a number that is not finite
        strict = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "run_id": self.run_id, "what": what, **more}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | {"values": strict}, allow_nan=False) + "\n")
        except OSError as error:  # a full disk must not end the training here; saving a checkpoint will tell
            logger.warning("The local record %s cannot be written (%s).", self.path, type(error).__name__)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; a long value is cut, and says so."""
        texts = {_key(key): _cut(str(value)) for key, value in values.items()}
        self.write("params", texts)
        self._pending += [Param(key, text) for key, text in texts.items()]

    def tags(self, values: Mapping[str, Any]) -> None:
        """Log tags; a long value is cut, and says so."""
        texts = {_key(key): _cut(str(value)) for key, value in values.items()}
        self.write("tags", texts)
        self._pending += [RunTag(key, text) for key, text in texts.items()]

    def metrics(self, values: Mapping[str, float], *, step: int, unit: str) -> None:
        """Log numbers at a step, counted in `unit` (epoch or iteration)."""
        if values:
            values = {_key(key): value for key, value in values.items()}
            self.write("metrics", values, step=step, unit=unit)
            now = int(time.time() * 1000)
            self._pending += [Metric(key, value, now, step) for key, value in values.items()]

    def file(self, name: str, send: Callable[[mlflow.MlflowClient, str], None], **origin: Any) -> None:
        """Log an artifact called `name`, which `send(client, run_id)` uploads; `origin` stays in the local record."""
        self.write("artifact", {"name": name, **origin})
        self._files.append(send)

    def open(self) -> None:
        """Make or reopen the MLflow run now, and raise what goes wrong with that."""
        if self._client is not None and self.run_id is None:
            self.run_id = self._connect()

    def send_sometimes(self) -> None:
        """Send what waits, if the last time is some seconds ago and the server is not lost."""
        if not self._lost and time.monotonic() - self._sent_at > SEND_EVERY_S:
            self.send()

    def send(self, *, status: str | None = None) -> None:
        """Send what waits; with a `status` (FINISHED or FAILED) end the run, and try whatever the pause."""
        if self._client is None or (status is None and time.monotonic() < self._not_before):
            return
        try:
            self.open()
            while self._pending:
                self._deliver(self._pending[:BATCH])
                del self._pending[:BATCH]
            if status is not None:  # before the files, for a run can end although its artifacts' store is full
                self._client.set_terminated(self.run_id, status)
            while self._files:
                self._files[0](self._client, str(self.run_id))
                del self._files[0]
        except Exception as error:  # whatever a client, a proxy or a driver raises, the training goes on
            if not self._lost:
                text = "MLflow does not answer (%s). The run goes on; every value is in %s, and is sent when it is back."
                logger.warning(text, type(error).__name__, self.path)
            self.wait()
            return
        self._lost, self._pause, self._sent_at = False, FIRST_PAUSE_S, time.monotonic()

    def wait(self) -> None:
        """Take the server for lost, and leave it alone for a while that doubles each time."""
        self._lost = True
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)

    def _deliver(self, batch: Sequence[Metric | Param | RunTag]) -> None:
        assert self._client is not None
        kinds = {"metrics": Metric, "params": Param, "tags": RunTag}
        sorted_by_kind = {name: [x for x in batch if isinstance(x, kind)] for name, kind in kinds.items()}
        try:
            self._client.log_batch(self.run_id, **sorted_by_kind)
        except MlflowException as error:
            if not refused(error):
                raise
            if len(batch) > 1:  # find the one that is not wanted
                for item in batch:
                    self._deliver([item])
            elif isinstance(batch[0], Param):  # a parameter cannot change, but a resumed run may have changed it
                self._deliver([RunTag(f"resumed.{batch[0].key}", batch[0].value)])
            else:
                logger.warning("MLflow refused the value %r; it is in %s.", batch[0].key, self.path)


def refused(error: MlflowException) -> bool:
    """Whether the server answered and did not want the value; else it is not there, or not for us, or too busy."""
    status = error.get_http_status_code()
    return 400 <= status < 500 and status not in (401, 403, 408, 429)


def _key(name: str) -> str:
    return re.sub(r"[^\w./: -]", "_", name)[:250]


def _cut(text: str) -> str:
    note = f" … [cut, {len(text)} characters]"
    return text if len(text) <= VALUE_LIMIT else text[: VALUE_LIMIT - len(note)] + note
