"""MLflow tracking of a bundle's runs, with a local record beside it that a lost server cannot take away.

MONAI's handler sends metrics; this one adds what is needed to compare runs: knobs, data, code and machine, the best
value, a run that ends as FINISHED or FAILED, and the link from an evaluation to the training it judges.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

import ignite
import mlflow
import monai
import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from monai.handlers import MLFlowHandler
from monai.utils import flatten_dict
from sqlalchemy.exc import SQLAlchemyError

logger = logging.getLogger(__name__)

# Where a run is stored and how it is started; everything else at the top of a config is a knob.
_PLUMBING = {"imports", "bundle_root", "output_dir", "ckpt_dir", "training_dir", "save_execute_config"}
_PLUMBING |= {"tracking_uri", "experiment_name", "run_name", "name_knobs", "parent_run_id", "on_unreachable"}
_PLUMBING |= {"is_not_rank0", "resume"}
_VALUE_LIMIT = 500  # characters of a parameter that every MLflow server accepts
_BATCH = 100  # parameters that MLflow takes in one request
_SEND_EVERY_S = 5.0
_LONGEST_PAUSE_S = 600.0


class Terminated(SystemExit):
    """Raised in the main thread on SIGTERM, so that a stopped training unwinds and its run is closed."""


def default_tracking_uri(bundle_root: str | Path) -> str:
    """From a bundle's folder to the SQLite URI of its runs: one database for all bundles of a clone.

    A clone is known by its `mlflow/tracking.json`; a bundle outside one keeps its runs in its own folder.

    Args:
        bundle_root: the bundle's folder.
    """
    root = Path(bundle_root).resolve()
    home = next((parent for parent in root.parents if (parent / "mlflow" / "tracking.json").is_file()), root)
    return f"sqlite:///{(home / 'runs' / 'mlflow.db').as_posix()}"


class RunRecord:
    """Takes parameters, tags, metrics and files; writes each to a JSON-lines file and sends it to MLflow.

    Sending never raises: after a failure the values wait, and later calls try again, less and less often.

    Args:
        path: the local record, one JSON object a line, appended.
        connect: makes (or reopens) the MLflow run and returns its id; called until it succeeds.
        client: the MLflow client, None where there is none to be had.
        retry_s: first pause in seconds after a failure; it doubles up to ten minutes.
    """

    def __init__(
        self, *, path: Path, connect: Callable[[], str], client: mlflow.MlflowClient | None, retry_s: float
    ) -> None:
        self.path = path
        self.run_id: str | None = None
        self._connect = connect
        self._client = client
        self._first_pause = self._pause = retry_s
        self._not_before = 0.0
        self._sent_at = time.monotonic()
        self._lost = False
        self._pending: list[Metric | Param | RunTag] = []
        self._files: list[Callable[[mlflow.MlflowClient, str], None]] = []

    def write(self, what: str, values: Mapping[str, Any], **more: Any) -> None:
        """Append one line to the local record."""
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "run_id": self.run_id, "what": what, **more}
        line["values"] = {key: _strict(value) for key, value in values.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:  # a full disk must not end the training here; saving a checkpoint will tell
            logger.warning("The local record %s cannot be written (%s).", self.path, type(error).__name__)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; a long value is cut, and says so."""
        texts = {_key(key): _cut(str(value)) for key, value in values.items()}
        self.write("params", texts)
        self._pending += [Param(key, text) for key, text in texts.items()]

    def tags(self, values: Mapping[str, Any]) -> None:
        """Log tags."""
        texts = {_key(key): _cut(str(value)) for key, value in values.items()}
        self.write("tags", texts)
        self._pending += [RunTag(key, text) for key, text in texts.items()]

    def metrics(self, values: Mapping[str, float], *, step: int, unit: str) -> None:
        """Log numbers at a step, counted in `unit` (epoch or iteration)."""
        if values:
            values = {_key(key): float(value) for key, value in values.items()}
            self.write("metrics", values, step=step, unit=unit)
            now = int(time.time() * 1000)
            self._pending += [Metric(key, value, now, step) for key, value in values.items()]

    def file(self, name: str, send: Callable[[mlflow.MlflowClient, str], None], **origin: Any) -> None:
        """Log an artifact called `name`, which `send(client, run_id)` uploads; `origin` stays in the local record."""
        self.write("artifact", {"name": name, **origin})
        self._files.append(send)

    def send_sometimes(self) -> None:
        """Send what waits, if the last time is some seconds ago and the server is not lost."""
        if not self._lost and time.monotonic() - self._sent_at > _SEND_EVERY_S:
            self.send()

    def send(self, *, status: str | None = None, strict: bool = False) -> bool:
        """Send what waits, and the final status if given; True if all of it arrived.

        Args:
            status: FINISHED or FAILED, the run's end: tried whatever the pause.
            strict: raise what goes wrong.
        """
        if self._client is None or (status is None and time.monotonic() < self._not_before):
            return False
        waiting = len(self._pending)
        try:
            self.run_id = self.run_id or self._connect()
            while self._pending:
                batch = self._pending[:_BATCH]
                self._deliver(batch)
                del self._pending[: len(batch)]
            while self._files:
                self._files[0](self._client, self.run_id)
                del self._files[0]
            if status is not None:
                self._client.set_terminated(self.run_id, status)
        except Exception as error:  # whatever a client, a proxy or a driver raises, the training goes on
            if strict:
                raise
            if not self._lost:
                logger.warning(
                    "MLflow does not answer (%s). The run goes on; every value is in %s, and is sent when it is back.",
                    type(error).__name__,
                    self.path,
                )
            self.wait()
            return False
        if self._lost:
            logger.info("MLflow answers again: %d waiting values were sent.", waiting)
        self._lost, self._pause, self._sent_at = False, self._first_pause, time.monotonic()
        return True

    def _deliver(self, batch: Sequence[Metric | Param | RunTag]) -> None:
        assert self._client is not None
        assert self.run_id is not None
        try:
            self._client.log_batch(
                self.run_id,
                metrics=[item for item in batch if isinstance(item, Metric)],
                params=[item for item in batch if isinstance(item, Param)],
                tags=[item for item in batch if isinstance(item, RunTag)],
            )
        except MlflowException as error:
            if not _refused(error):
                raise
            if len(batch) > 1:  # find the one that is not wanted
                for item in batch:
                    self._deliver([item])
            elif isinstance(batch[0], Param):  # a parameter cannot change, but a resumed run may have changed it
                self._deliver([RunTag(f"resumed.{batch[0].key}", batch[0].value)])
            else:
                logger.warning("MLflow refused the value %r; it is in %s.", batch[0].key, self.path)

    def wait(self) -> None:
        """Take the server for lost, and leave it alone for a while that doubles each time."""
        self._lost = True
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)


# The runs that are open in this process, by output folder: a trainer and the validator inside it share one.
_OPEN: dict[Path, TrackingHandler] = {}


class TrackingHandler(MLFlowHandler):
    """Tracks an ignite engine's run in MLflow and in `output_dir`; made for `monai.bundle run --tracking`.

    The first engine to start opens the run and closes it; an engine started meanwhile with the same `output_dir`
    (the validator inside a trainer) logs to the same run. See `mlflow/README.md` for what is logged.

    Args:
        bundle_root: the bundle's folder; its name is the default experiment.
        output_dir: where `run.json` and `run_record.jsonl` are written and `overlays` folders are looked for.
        tracking_uri: SQLite or server URI, None for the clone's `runs/mlflow.db`; the environment variable
            MLFLOW_TRACKING_URI comes first, as in MONAI.
        experiment_name: None for the bundle's name.
        run_name: None for the values of `name_knobs` and the time; a name in use gets a number.
        name_knobs: top-level config keys that make up the run's name.
        kind: "training", or None for an evaluator: "evaluation" with a key metric, else "inference".
        executed_config: the config as it is run, as MONAI saves it; None to log no knobs.
        datalist: path of the JSON datalist; only its description and sizes are logged, never its items.
        ckpt_dir: where the training keeps its checkpoints; `run.json` is written there too.
        training_dir: folder of the `run.json` of the training to point to; None for `ckpt_dir`, then `output_dir`.
        resume: go on with the MLflow run that `output_dir/run.json` names.
        parent_run_id: the run under which this one is nested; None for the variable MLFLOW_PARENT_RUN_ID.
        on_unreachable: "error" or "warn", if MLflow does not answer at the start.
        retry_s: first pause in seconds after MLflow was lost.
        kwargs: passed to MONAI's MLFlowHandler (iteration_log, epoch_log, epoch_logger, …).

    Raises:
        ConnectionError: MLflow does not answer at the start and `on_unreachable` is "error".
        PermissionError: a SQLite file cannot be written.
        ValueError: `on_unreachable` is neither, or the store is a folder, which MLflow no longer takes.
    """

    def __init__(
        self,
        bundle_root: str | Path,
        output_dir: str | Path,
        *,
        tracking_uri: str | None = None,
        experiment_name: str | None = None,
        run_name: str | None = None,
        name_knobs: Sequence[str] = ("network_name", "arm", "seed"),
        kind: str | None = None,
        executed_config: str | Path | None = None,
        datalist: str | Path | None = None,
        ckpt_dir: str | Path | None = None,
        training_dir: str | Path | None = None,
        resume: bool = False,
        parent_run_id: str | None = None,
        on_unreachable: str = "error",
        retry_s: float = 30.0,
        **kwargs: Any,
    ) -> None:
        if on_unreachable not in ("error", "warn"):
            raise ValueError(f'on_unreachable must be "error" or "warn", got {on_unreachable!r}.')
        self.bundle_root, self.output_dir = Path(bundle_root).resolve(), Path(output_dir).resolve()
        self.ckpt_dir = None if ckpt_dir is None else Path(ckpt_dir).resolve()
        self.training_dirs = [Path(d) for d in (training_dir, self.ckpt_dir, self.output_dir) if d is not None]
        self.executed_config = _executed_config_path(executed_config, output_dir=self.output_dir)
        self.datalist, self.name_knobs, self.kind, self.resume = datalist, name_knobs, kind, bool(resume)
        self._given_name = None if run_name is None else re.sub(r"[^\w.+ -]+", "-", str(run_name))
        self.parent_run_id = parent_run_id or os.environ.get("MLFLOW_PARENT_RUN_ID")
        self.on_unreachable, self.retry_s = on_unreachable, retry_s
        self.record: RunRecord
        self._best: dict[str, float] = {}
        self._losses: dict[str, list[float]] = {}
        self._completed = False
        self.enabled = _rank() == 0
        if self.enabled:
            self.uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri or default_tracking_uri(self.bundle_root)
            self._connect_client(experiment_name=experiment_name or self.bundle_root.name, **kwargs)

    def _connect_client(self, **kwargs: Any) -> None:
        # MLflow's own defaults hold a training for many minutes when a server is gone.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        if self.uri.startswith("sqlite:///"):
            _make_writable(Path(self.uri.removeprefix("sqlite:///")))
        try:
            super().__init__(tracking_uri=self.uri, **{"output_transform": losses_of, **kwargs})
        except (MlflowException, OSError, SQLAlchemyError) as error:
            self._unreachable(error)
            self.client = None  # the attributes used here are set before MONAI makes the client

    def attach(self, engine: Engine) -> None:
        """Track `engine`.

        `engine.run` is wrapped: an exception handler would come too late or not at all, for ignite calls them in the
        order of attachment and MONAI's StatsHandler, usually attached first, raises again.

        Args:
            engine: a trainer, validator or evaluator.
        """
        if not self.enabled:
            return
        if self.iteration_log:
            event = Events.ITERATION_COMPLETED
            engine.add_event_handler(
                event(event_filter=self.iteration_log) if callable(self.iteration_log) else event,
                self.iteration_completed,
            )
        if self.epoch_log:
            event = Events.EPOCH_COMPLETED
            engine.add_event_handler(
                event(event_filter=self.epoch_log) if callable(self.epoch_log) else event, self.epoch_completed
            )
        engine.add_event_handler(Events.COMPLETED, self.complete)
        engine.run = self._tracked(engine)  # type: ignore[method-assign]

    def _tracked(self, engine: Engine) -> Callable[..., Any]:
        run = engine.run

        @functools.wraps(run)
        def tracked(*args: Any, **kwargs: Any) -> Any:
            owner = _OPEN.get(self.output_dir)
            if owner is not None:
                self.record, self._best = owner.record, owner._best
                return run(*args, **kwargs)
            with _sigterm_raises():
                try:
                    self.start(engine)
                    state = run(*args, **kwargs)
                except BaseException as error:  # KeyboardInterrupt and SystemExit end a run too
                    self._end("FAILED", error=type(error).__name__)
                    raise
                # An engine without data, or one whose exception a handler kept, returns as if all were well.
                self._end("FINISHED" if self._completed else "FAILED", error=None if self._completed else "Incomplete")
            return state

        return tracked

    def start(self, engine: Engine) -> None:
        """Open the run and log what is known before the first batch.

        Args:
            engine: the engine that is about to run.
        """
        self.output_dir.mkdir(parents=True, exist_ok=True)
        metric = getattr(engine.state, "key_metric_name", None)
        self._kind = self.kind or ("evaluation" if metric is not None else "inference")
        config = _read_json(self.executed_config)
        previous = _read_json(self.output_dir / "run.json") if self.resume and self._kind == "training" else {}
        self._name = previous.get("run_name") or self._given_name or self._readable_name(config)
        self._started = float(previous.get("started", time.time()))
        self._completed, self._losses, self._best = False, {}, {}
        self.record = RunRecord(
            path=self.output_dir / "run_record.jsonl",
            connect=functools.partial(self._open_run, previous=previous.get("run_id")),
            client=self.client,
            retry_s=self.retry_s,
        )
        if self.client is not None:
            try:
                self.record.send(strict=True)
            except Exception as error:  # a server can fail in many ways; all of them mean: not there
                self._unreachable(error)
                self.record.wait()
        _OPEN[self.output_dir] = self
        atexit.register(self._at_exit)
        self._log_start(engine, config)
        self._write_run_file("RUNNING")
        self.record.send()

    def _log_start(self, engine: Engine, config: dict[str, Any]) -> None:
        meta = config.get("_meta_") or {}
        tags = {
            "kind": self._kind,
            "bundle": self.bundle_root.name,
            "bundle_version": meta.get("version", "unknown"),
            "mlflow.source.name": self.bundle_root.name,
            "env.device": str(getattr(engine.state, "device", "unknown")),
            **git_state(self.bundle_root / "configs" / "metadata.json", Path(__file__)),
            **environment(),
        }
        if self.parent_run_id:
            tags["mlflow.parentRunId"] = self.parent_run_id
        params = knobs(config)
        if self._kind == "training":
            for key in ("max_epochs", "epoch_length"):
                params.setdefault(key, str(getattr(engine.state, key, None)))
        else:
            training = next((found for d in self.training_dirs if (found := _read_json(d / "run.json"))), {})
            tags |= {f"training_{key}": training[key] for key in ("run_id", "run_name") if training.get(key)}
        data_params, data_tags = describe_datalist(self.datalist)
        self.record.params(params | data_params)
        self.record.tags(tags | data_tags)
        if config and self.executed_config is not None:
            text = json.dumps(scrub(config), indent=2)
            self._log_text(f"config/{self.executed_config.name}", text.replace(str(Path.home()) + os.sep, "~" + os.sep))
        self._log_text("environment/packages.txt", packages())

    def _log_text(self, name: str, text: str) -> None:
        self.record.file(name, lambda client, run_id: client.log_text(run_id, text, name))

    def _open_run(self, previous: str | None) -> str:
        assert self.client is not None
        self._set_experiment()
        assert self.experiment is not None
        if previous is not None:
            try:
                return self._reopen(previous)
            except MlflowException as error:
                if not _refused(error):
                    raise
                logger.warning("MLflow has no run %s to resume; the training continues in a new run.", previous)
        wanted, number = self._name, 1
        experiment = self.experiment.experiment_id
        while self.client.search_runs([experiment], f"attributes.run_name = '{self._name}'", max_results=1):
            number += 1
            self._name = f"{wanted}-{number}"
        tags = {"resumed_from_run_id": previous} if previous is not None else {}
        return str(self.client.create_run(experiment, run_name=self._name, tags=tags).info.run_id)

    def _reopen(self, run_id: str) -> str:
        run = self.client.get_run(run_id)
        self.client.update_run(run_id, status="RUNNING")
        if "error" in run.data.tags:
            self.client.delete_tag(run_id, "error")
        for key, value in run.data.metrics.items():
            if key.startswith("best_") and not key.endswith("_epoch"):
                self._best.setdefault(key.removeprefix("best_"), value)
        return run_id

    def _readable_name(self, config: Mapping[str, Any]) -> str:
        values = [(key, config[key]) for key in self.name_knobs if isinstance(config.get(key), str | int | float)]
        words = [str(value) if isinstance(value, str) else f"{key}{value}" for key, value in values]
        words = [re.sub(r"[^\w.+-]+", "-", Path(word).name) for word in words or [self.bundle_root.name]]
        start = [] if self._kind == "training" else [self._kind]
        return "_".join([*start, *words, time.strftime("%Y%m%d-%H%M%S")])

    def _unreachable(self, error: Exception) -> None:
        uri = without_credentials(self.uri)
        text = str(error).replace(urlsplit(self.uri).netloc, urlsplit(uri).netloc)
        reason = f"{type(error).__name__}: {(text.splitlines() or [''])[0][:200]}"
        if self.on_unreachable == "error":
            raise ConnectionError(
                f"The MLflow store {uri} cannot be used ({reason}). Start it or give another --tracking_uri; with "
                f"--on_unreachable warn the run goes on and is recorded in {self.output_dir} alone."
            ) from None  # dozens of lines of HTTP internals, with the password in them
        logger.warning("The MLflow store %s cannot be used (%s); recording in %s.", uri, reason, self.output_dir)

    def _write_run_file(self, status: str) -> None:
        run = {
            "run_id": self.record.run_id,
            "run_name": self._name,
            "experiment": self.experiment_name if self.client is not None else self.bundle_root.name,
            "tracking_uri": without_credentials(self.uri),
            "kind": self._kind,
            "status": status,
            "started": self._started,
        }
        training = self._kind == "training"
        folders = {self.output_dir, self.ckpt_dir or self.output_dir} if training else {self.output_dir}
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            _write_json(folder / ("run.json" if training else f"{self._kind}_run.json"), run)

    def complete(self) -> None:
        """Note that the engine came to its end; the run is closed when all its handlers are done."""
        self._completed = True

    def _end(self, status: str, *, error: str | None) -> None:
        if _OPEN.get(self.output_dir) is not self:
            return
        del _OPEN[self.output_dir]
        atexit.unregister(self._at_exit)
        if error is not None:
            self.record.tags({"error": error})  # the class alone: a message may hold a patient's path
        else:
            self._log_overlays()
        self.record.write("status", {"status": status})
        self.record.send(status=status)
        self._write_run_file(status)
        if self.client is not None:
            self._dispose_sqlite_store()

    def _at_exit(self) -> None:
        self._end("FAILED", error="InterpreterExit")

    def _log_overlays(self) -> None:
        # Numbered in the order of their names, for a file's name may be a patient's; the local record has both.
        found = sorted(p for p in self.output_dir.rglob("*.png") if "overlays" in p.relative_to(self.output_dir).parts)
        recent = [path for path in found if path.stat().st_mtime >= self._started - 2]
        for index, path in enumerate(recent):
            name = f"{index:04d}.png"
            send = functools.partial(_log_renamed, path=path, name=name, folder="overlays")
            self.record.file(f"overlays/{name}", send, file=str(path.relative_to(self.output_dir)))

    def epoch_completed(self, engine: Engine) -> None:
        """Log the engine's metrics with the epoch as step, and its best key metric.

        Args:
            engine: a trainer, validator or evaluator.
        """
        super().epoch_completed(engine)
        self.record.send()

    def iteration_completed(self, engine: Engine) -> None:
        """Log the losses and learning rates of one iteration.

        Args:
            engine: a trainer, validator or evaluator.
        """
        super().iteration_completed(engine)
        self.record.send_sometimes()

    def _default_epoch_log(self, engine: Engine) -> None:
        step = int(self.global_epoch_transform(engine.state.epoch))
        values = scalars(engine.state.metrics)
        values |= {f"{key}_epoch": sum(losses) / len(losses) for key, losses in self._losses.items()}
        self._losses = {}
        key = getattr(engine.state, "key_metric_name", None)
        if self._kind_of_run() == "training" and key in values and math.isfinite(values[key]):
            better = getattr(engine, "metric_cmp_fn", float.__gt__)
            if key not in self._best or better(values[key], self._best[key]):
                self._best[key] = values[key]
                values |= {f"best_{key}": values[key], f"best_{key}_epoch": float(step)}
        if self.state_attributes is not None:
            values |= scalars({name: getattr(engine.state, name, None) for name in self.state_attributes})
        self.record.metrics(values, step=step, unit="epoch")

    def _kind_of_run(self) -> str:
        return _OPEN[self.output_dir]._kind

    def _default_iteration_log(self, engine: Engine) -> None:
        output = self.output_transform(engine.state.output)
        losses = scalars(output if isinstance(output, Mapping) else {self.tag_name: output})
        for key, value in losses.items():
            self._losses.setdefault(key, []).append(value)
        self.record.metrics(losses | learning_rates(engine), step=int(engine.state.iteration), unit="iteration")

    def _log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.record.metrics(scalars(metrics), step=step or 0, unit="epoch")

    def _log_params(self, params: dict[str, Any]) -> None:
        self.record.params(params)

    def close(self) -> None:
        """End the run, as FINISHED if its engine came to its end; happens by itself when the engine returns."""
        self._end("FINISHED" if self._completed else "FAILED", error=None if self._completed else "Incomplete")


def losses_of(output: Any) -> dict[str, Any]:
    """From an engine's output (a dict, or MONAI's list of dicts) to `{"train_<key>": loss}` for its keys with "loss".

    Args:
        output: `engine.state.output` of a trainer.
    """
    first = output[0] if isinstance(output, list | tuple) and output else output
    if not isinstance(first, Mapping):
        return {}
    return {f"train_{key}": value for key, value in first.items() if "loss" in str(key)}


def learning_rates(engine: Engine) -> dict[str, float]:
    """From an engine to the learning rates of its optimizers, `lr_group_0` in MONAI's naming.

    Args:
        engine: a trainer with `optimizer`, or several attributes that end in it (`g_optimizer`).
    """
    rates: dict[str, float] = {}
    for name in ("optimizer", *sorted(key for key in vars(engine) if key.endswith("_optimizer"))):
        optimizer = getattr(engine, name, None)
        if isinstance(optimizer, torch.optim.Optimizer):
            prefix = "" if name == "optimizer" else f"{name}_"
            rates |= {f"{prefix}lr_group_{i}": float(g["lr"]) for i, g in enumerate(optimizer.param_groups)}
    return rates


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """From nested metrics to plain floats; a vector of up to 64 values is numbered, anything else left out.

    Args:
        values: names to numbers, tensors, arrays or dicts of them.
    """
    result: dict[str, float] = {}
    for key, value in flatten_dict(dict(values)).items():
        if isinstance(value, bool | int | float | np.ndarray | np.generic | torch.Tensor):
            flat = np.asarray(value.detach().float().cpu() if isinstance(value, torch.Tensor) else value).ravel()
            if flat.size == 1:
                result[key] = float(flat[0])
            elif flat.size <= 64:
                result |= {f"{key}_{i}": float(item) for i, item in enumerate(flat)}
    return result


def knobs(config: Mapping[str, Any]) -> dict[str, str]:
    """From an executed config to its knobs: the top-level scalars and plain lists, as text without private paths.

    Args:
        config: the config as MONAI saves it, with expressions unevaluated.
    """

    def plain(value: Any) -> bool:
        reference = isinstance(value, str) and value.startswith(("@", "%"))
        component = isinstance(value, str) and value.startswith("$") and ("@" in value or "import" in value)
        return isinstance(value, str | int | float | None) and not reference and not component

    result = {}
    for key, value in config.items():
        if key in _PLUMBING or key.startswith("_"):
            continue
        if plain(value):
            result[key] = str(_public(value, key=key))
        elif isinstance(value, list) and value and all(plain(v) and str(v)[:1] != "$" for v in value):
            result[key] = json.dumps([_public(v, key=key) for v in value])
    return result


def scrub(config: Any, *, key: str = "") -> Any:
    """From a config to a copy without private paths: absolute ones keep their last part, lists of data are counted.

    Args:
        config: a config, or a part of it.
        key: the part's name in the config.
    """
    if isinstance(config, Mapping):
        return {k: scrub(v, key=str(k)) for k, v in config.items()}
    if isinstance(config, list):
        if key in ("data", "datalist") and config:
            return f"{len(config)} items left out"
        return [scrub(item, key=key) for item in config]
    return _public(config, key=key)


def _public(value: Any, *, key: str) -> Any:
    if not isinstance(value, str) or not value:
        return value
    if "://" in value:
        return without_credentials(value)
    absolute = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith("~")
    if absolute or (key in ("dataset_dir", "datalist") and not value.startswith("$")):
        return PureWindowsPath(value).name or value
    return value


def without_credentials(uri: str) -> str:
    """From a URI to the same without user name and password.

    Args:
        uri: for example `https://user:secret@host:5000`.
    """
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def describe_datalist(path: str | Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """From a datalist to parameters and tags: name, seed, ratios, hashes, split sizes, gaze source; no item of it.

    Args:
        path: JSON file with "training", "validation" and "test" lists; None or a missing file gives nothing.
    """
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return {}, {}  # MONAI Label hands the items over itself
    raw = Path(path).read_bytes()
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise ValueError(f"The datalist {path} is not JSON: {error}.") from error
    params = {"datalist_sha256": hashlib.sha256(raw).hexdigest()}
    content = content if isinstance(content, dict) else {}
    for key in ("name", "seed", "ratios", "data_sha256"):
        if key in content:
            params[f"data_{key.removeprefix('data_')}"] = str(content[key])
    for split in ("training", "validation", "test"):
        if isinstance(content.get(split), list):
            params[f"n_{split}"] = str(len(content[split]))
    gaze = content.get("gaze")
    return params, {"gaze_source": str(gaze.get("source", "unknown"))} if isinstance(gaze, Mapping) else {}


def git_state(*files: Path) -> dict[str, str]:
    """From files to the commit, and whether it was changed, of the first that git tracks; "unknown" if it tracks none.

    Args:
        files: a bundle's metadata, a module: what the run is made of.
    """

    def git(folder: Path, *command: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):  # no git here, or a very slow disk
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    for file in files:
        if git(file.parent, "ls-files", "--error-unmatch", file.name) is not None:
            commit = git(file.parent, "rev-parse", "HEAD")
            changed = git(file.parent, "status", "--porcelain", "--untracked-files=no")
            if commit and changed is not None:
                dirty = str(bool(changed)).lower()
                return {"git_commit": commit, "git_dirty": dirty, "mlflow.source.git.commit": commit}
    return {"git_commit": "unknown", "git_dirty": "unknown"}


def environment() -> dict[str, str]:
    """Give the versions and the hardware that a result depends on, as tags `env.<name>`."""
    found = {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "torch": torch.__version__,
        "monai": monai.__version__,
        "ignite": ignite.__version__,
        "numpy": np.__version__,
        "mlflow": mlflow.__version__,
        "cpu": _cpu_name(),
        "threads": str(torch.get_num_threads()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "cuda": str(torch.version.cuda) if torch.cuda.is_available() else "none",
        "world_size": str(dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1),
    }
    return {f"env.{key}": value for key, value in found.items()}


def packages() -> str:
    """Give the installed packages, one `name==version` a line."""
    found = {f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1) if match else platform.processor() or platform.machine()


def _rank() -> int:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into `Terminated` meanwhile, unless the program has a handler of its own."""
    usable = threading.current_thread() is threading.main_thread()
    if not usable or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() != process:  # a forked worker keeps the usual meaning
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Terminated(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _executed_config_path(given: str | Path | None, *, output_dir: Path) -> Path | None:
    # With a literal output_dir, MONAI hands over the text "<output_dir> + '/config_<time>.json'" unevaluated.
    unevaluated = re.search(r"\+ '/(config_\d+_\d+\.json)'$", str(given))
    if unevaluated:
        return output_dir / unevaluated.group(1)
    return Path(given) if isinstance(given, str | Path) else None


def _make_writable(database: Path) -> None:
    # MLflow itself would try for more than a minute.
    with contextlib.suppress(OSError):
        database.parent.mkdir(parents=True, exist_ok=True)
    place = database if database.exists() else database.parent
    if not (database.parent.is_dir() and os.access(place, os.W_OK)):
        raise PermissionError(f"The MLflow database {database} cannot be written; give another --tracking_uri.")


def _log_renamed(client: mlflow.MlflowClient, run_id: str, *, path: Path, name: str, folder: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        client.log_artifact(run_id, shutil.copyfile(path, Path(temporary) / name), folder)


def _refused(error: MlflowException) -> bool:
    """Whether the server answered and did not want the value; else it is not there, or not for us, or too busy."""
    status = error.get_http_status_code()
    return 400 <= status < 500 and status not in (401, 403, 408, 429)


def _key(name: str) -> str:
    return re.sub(r"[^\w./: -]", "_", name)[:250]


def _cut(text: str) -> str:
    note = f" … [cut, {len(text)} characters]"
    return text if len(text) <= _VALUE_LIMIT else text[: _VALUE_LIMIT - len(note)] + note


def _strict(value: Any) -> Any:
    """Non-finite numbers as text, for JSON has none."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _read_json(path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
