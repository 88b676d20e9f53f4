"""MLflow tracking of a bundle's runs, with a local record beside it that a lost server cannot take away.

MONAI's MLFlowHandler sends metrics; this one adds what is needed to compare runs: knobs, data, code and machine, the
best value, a run that ends as FINISHED or FAILED, and the link from an evaluation to the training it judges.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ..outputs.files import write_atomically
from ..outputs.summary import named_by_split
from ..weights_card import read_card
from .artifacts import log_text, overlays_in, reports_in
from .deadline import seconds_of
from .description import (
    INITIAL_WEIGHTS,
    command_of,
    describe_experiment,
    description_tags,
    network_name,
    readable_name,
    start_of,
    start_of_card,
    untold_starts,
)
from .facts import (
    describe_datalist,
    environment,
    git_state,
    knobs,
    learning_rates,
    losses_of,
    packages,
    scalars,
    scrub,
    used_by,
    without_credentials,
)
from .inputs import data_sets, log_inputs, splits_of
from .logged_model import WeightsLink, sha256_of
from .machine import MachineMonitor
from .record import RunRecord
from .store import UNREACHABLE, RunStore, default_tracking_uri, what_failed

logger = logging.getLogger(__name__)


# The runs that are open in this process, by output folder: a trainer and the validator inside it share one.
_OPEN: dict[Path, TrackingHandler] = {}


class Terminated(SystemExit):
    """SIGTERM, raised in the main thread so that a stopped training unwinds and its run is closed."""


class TrackingHandler:
    """Track an ignite engine's run in MLflow and in `output_dir`; made for `monai.bundle run --tracking`.

    The first engine to start opens the run and closes it; an engine started meanwhile with the same `output_dir`
    (the validator inside a trainer) logs to the same run. See `mlflow/README.md` for what is logged.

    Args:
        bundle_root: the bundle's folder; its name is the default of `experiment_name`.
        output_dir: where `run.json` and `run_record.jsonl` are written and `overlays` folders are looked for.
        tracking_uri: SQLite or server URI, None for the clone's; the variable MLFLOW_TRACKING_URI comes first.
        experiment_name, run_name: None for the bundle's name, and for the values of `name_knobs` and the time.
        name_knobs: top-level config keys whose values stand in the run's name behind its stage and its network.
        untracked: top-level config keys that are no parameters of the run, such as where it is stored.
        kind: "training", or None for an evaluator: "evaluation" with a key metric, else "inference".
        iteration_log: log losses and learning rates of every iteration.
        executed_config, datalist: files as MONAI saves and reads them; None to log nothing of them.
        ckpt_dir: where the training keeps its checkpoints; `run.json` is written there too.
        ckpt_path: the weights of an evaluation or inference.
        training_dir: folder of the `run.json` of their training; None for that of `ckpt_path`, then `output_dir`.
        resume: go on with the MLflow run that `output_dir/run.json` names.
        parent_run_id: the run under which this one is nested; None for the variable MLFLOW_PARENT_RUN_ID.
        register: name in MLflow's registry under which the weights of a training become a new version; None for none.
        run_tags: more tags of the run.
        system_metrics: measure every ten seconds how busy the machine is.
        on_unreachable: "error" (a ConnectionError) or "warn", if MLflow does not answer when the engine starts.

    Raises:
        ValueError: `on_unreachable` is neither.
    """

    def __init__(
        self,
        bundle_root: str | Path,
        output_dir: str | Path,
        *,
        tracking_uri: str | None = None,
        experiment_name: str | None = None,
        run_name: str | None = None,
        name_knobs: Sequence[str] = (),
        untracked: Sequence[str] = (),
        kind: str | None = None,
        iteration_log: bool = True,
        executed_config: str | Path | None = None,
        datalist: str | Path | None = None,
        ckpt_dir: str | Path | None = None,
        ckpt_path: str | Path | None = None,
        training_dir: str | Path | None = None,
        resume: bool = False,
        parent_run_id: str | None = None,
        register: str | None = None,
        run_tags: Mapping[str, Any] | None = None,
        system_metrics: bool = False,
        on_unreachable: str = "error",
    ) -> None:
        if on_unreachable not in ("error", "warn"):
            raise ValueError(f'on_unreachable must be "error" or "warn", got {on_unreachable!r}.')
        self.bundle_root, self.output_dir = Path(bundle_root).resolve(), Path(output_dir).resolve()
        self.ckpt_path = Path(ckpt_path) if ckpt_path is not None else None
        self.ckpt_dir = Path(ckpt_dir).resolve() if ckpt_dir is not None else self.output_dir
        beside_weights = [Path(ckpt_path).parent] if ckpt_path is not None else []
        self.training_dirs = [Path(training_dir)] if training_dir is not None else [*beside_weights, self.output_dir]
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri or default_tracking_uri(self.bundle_root)
        self.experiment_name = experiment_name or self.bundle_root.name
        self.run_name, self.name_knobs, self.kind, self.resume = run_name, name_knobs, kind, resume
        self.untracked, self.register, self.run_tags = untracked, register, dict(run_tags or {})
        self.system_metrics = system_metrics
        self.parent_run_id = parent_run_id or os.environ.get("MLFLOW_PARENT_RUN_ID")
        # With a literal output_dir, MONAI hands over the text "<output_dir> + '/config_<time>.json'" unevaluated.
        expression = re.search(r"\+ '/(config_\d+_\d+\.json)'$", str(executed_config))
        config = self.output_dir / expression.group(1) if expression else executed_config
        self.executed_config = Path(config) if isinstance(config, str | Path) else None
        self.datalist, self.iteration_log, self.on_unreachable = datalist, iteration_log, on_unreachable

    def attach(self, engine: Engine) -> None:
        """Track `engine`, a trainer, validator or evaluator; of several processes only rank 0 does.

        `engine.run` is wrapped: an exception handler would come too late or not at all, for ignite calls them in the
        order of attachment and MONAI's StatsHandler, usually attached first, raises again.
        """
        if os.environ.get("RANK", "0") != "0":
            return
        if self.iteration_log:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        if self.system_metrics:
            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self._owner._measure_machine())
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self._complete)
        engine.run = self._tracked(engine)  # type: ignore[method-assign]

    def _tracked(self, engine: Engine) -> Callable[..., Any]:
        run = engine.run

        @functools.wraps(run)
        def tracked(*args: Any, **kwargs: Any) -> Any:
            self._owner = _OPEN.get(self.output_dir, self)
            if self._owner is not self:
                return run(*args, **kwargs)
            with _sigterm_raises():
                self._open(engine)
                # An engine without data, or one whose exception a handler kept, returns as if all were well.
                error: str | None = "Incomplete"
                try:
                    self._log_facts(engine)
                    state = run(*args, **kwargs)
                    error = None if self._is_complete else error
                    return state
                except BaseException as raised:  # KeyboardInterrupt and SystemExit end a run too
                    error = type(raised).__name__  # the class alone: a message may hold a patient's path
                    raise
                finally:
                    self._close(error)

        return tracked

    def _open(self, engine: Engine) -> None:
        self._kind = self.kind or ("evaluation" if getattr(engine.state, "key_metric_name", None) else "inference")
        config = self.executed_config
        self._config = json.loads(config.read_text(encoding="utf-8")) if config and config.is_file() else {}
        self._meta: dict[str, Any] = self._config.get("_meta_", {})
        self._network = getattr(engine, "network", None)
        self._begun_with = start_of(self._config) if self._kind == "training" else start_of_card(self.ckpt_path)
        self._trained = self._trained_by()
        # What the weights were trained with, where the config of an evaluation has another value or the default.
        options = self._trained.get("options", {}) or self._options_of_card()
        self._facts = self._config | {key: value for key, value in options.items() if key in self._config}
        # Of an evaluation, not the defaults of what a training alone needs.
        is_part = self._kind != "training" and "run" in self._config
        self._known = used_by(self._config, "run") | options.keys() if is_part else self._facts.keys()
        previous = _read_run(self.output_dir / "run.json") if self.resume and self._kind == "training" else {}
        name = previous.get("run_name") or self.run_name or self._readable_name()
        self._store = RunStore(self.uri, experiment=self.experiment_name, name=name, previous=previous.get("run_id"))
        self._start, self._is_complete = time.time(), False
        self._losses: dict[str, list[float]] = {}
        self.output_dir.mkdir(parents=True, exist_ok=True)
        path, store = self.output_dir / "run_record.jsonl", self._store
        self.record = RunRecord(path, store.open, check=store.check, seconds=seconds_of(self.uri))
        self._monitor = MachineMonitor(self.output_dir) if self.system_metrics else None
        self._link: WeightsLink | None = None
        try:
            self.record.open()
        except UNREACHABLE as error:
            text = what_failed(self.uri, error)
            if self.on_unreachable == "error":
                raise ConnectionError(f"{text} With --on_unreachable warn, train without it.") from None
            logger.warning("%s Recording in %s.", text, self.output_dir)
            self.record.wait()
        else:
            print(f"tracked as {self._store.name} {self._store.place}", flush=True)
        _OPEN[self.output_dir] = self

    def _readable_name(self) -> str:
        more: dict[str, Any] = {"name_knobs": self.name_knobs, "start": self._begun_with}
        return readable_name(self._facts, self._network, kind=self._kind, bundle=self.bundle_root.name, **more)

    def _log_facts(self, engine: Engine) -> None:
        untracked = [*self.untracked, *(untold_starts(self._facts) if self.resume else ())]
        params = knobs({k: v for k, v in self._facts.items() if k in self._known}, untracked=untracked)
        data_params, data_tags = describe_datalist(self.datalist)
        if "device" in params:
            params["device"] = str(getattr(engine.state, "device", params["device"]))
        if self._kind == "training":
            params = {key: str(getattr(engine.state, key)) for key in ("max_epochs", "epoch_length")} | params
        start = {} if self._begun_with is None else {INITIAL_WEIGHTS: self._begun_with.text}
        self.record.texts("params", params | start | data_params)
        tags, model_id = self._tags(engine) | start, None
        if self._kind != "training":
            training = self._trained
            tags |= {f"training_{key}": training[key] for key in ("run_id", "run_name") if training.get(key)}
            model_id = training.get("model", {}).get("id")
        self.record.texts("tags", tags | data_tags | self.run_tags)
        datasets = data_sets(data_params, splits_of(self._config, self._kind))
        if datasets or model_id:
            contents = {x.dataset.name: x.dataset.digest for x in datasets} | ({"model": model_id} if model_id else {})
            self.record.call("inputs", contents, functools.partial(log_inputs, datasets=datasets, model_id=model_id))
        if self._meta:
            describe = functools.partial(describe_experiment, meta=self._meta)
            self.record.call("experiment", {"name": self.experiment_name}, describe)
        texts = {"environment/packages.txt": packages()}
        if self._config and self.executed_config is not None:
            texts[f"config/{self.executed_config.name}"] = json.dumps(scrub(self._config), indent=2)
        for name, text in texts.items():
            self.record.file(name, functools.partial(log_text, text=text, name=name))
        self._write_run_file("RUNNING")
        self.record.send()

    def _tags(self, engine: Engine) -> dict[str, Any]:
        code = git_state(self.bundle_root / "configs" / "metadata.json", Path(__file__))
        machine = environment()
        device = str(getattr(engine.state, "device", "unknown"))
        tags = {
            "kind": self._kind,
            "bundle": self.bundle_root.name,
            "bundle_version": self._meta.get("version", "unknown"),
            "network": network_name(self._config, self._network) or "unknown",
            "hardware": machine["env.gpu" if device.startswith("cuda") else "env.cpu"],
            "env.device": device,
            **code,
            **machine,
            **description_tags(
                self._meta, command_of(sys.argv, untracked=self.untracked), git_commit=code["git_commit"]
            ),
        }
        return tags | ({"mlflow.parentRunId": self.parent_run_id} if self.parent_run_id else {})

    def _trained_by(self) -> dict[str, Any]:
        """Give the ``run.json`` of the training, its model and options only where its weights are those judged here."""
        if self._kind == "training":
            return {}
        run = next((run for d in self.training_dirs if (run := _read_run(d / "run.json"))), {})
        model, weights = run.get("model"), self.ckpt_path
        if (
            weights is not None
            and weights.is_file()
            and isinstance(model, dict)
            and model["sha256"] == sha256_of(weights)
        ):
            return run
        return {key: value for key, value in run.items() if key not in ("model", "options")}

    def _options_of_card(self) -> dict[str, Any]:
        """Give what the weights were trained with where no ``run.json`` says so: of a training that was not tracked."""
        if self._kind == "training" or self.ckpt_path is None or not self.ckpt_path.is_file():
            return {}
        return {key: scrub(value, key=key) for key, value in read_card(self.ckpt_path).get("options", {}).items()}

    def _log_outputs(self) -> None:
        reports = reports_in(self.output_dir, since=self._start) if self._kind == "evaluation" else ()
        for name, file, send in [*overlays_in(self.output_dir, since=self._start), *reports]:
            self.record.file(name, send, file=str(file.relative_to(self.output_dir)))
        weights = self.ckpt_dir / "model.pt"
        if self._kind == "training" and weights.is_file() and weights.stat().st_mtime >= self._start - 2:
            self._link = WeightsLink(
                weights,
                folder=self.output_dir,
                name=self._store.name,
                bundle=self.bundle_root.name,
                meta=self._meta,
                register=self.register,
            )
            self.record.call("model", {"name": self._link.name, **self._link.tags}, self._link)

    def _write_run_file(self, status: str) -> None:
        run: dict[str, Any] = {
            "run_id": self.record.run_id,
            "run_name": self._store.name,
            "tracking_uri": without_credentials(self.uri),
        }
        options = self._config.get("training_options", {})
        run["options"] = {key: scrub(self._config[key]) for key in options if key in self._config}
        if self._link is not None and self._link.model_id is not None:
            run["model"] = {"id": self._link.model_id, "sha256": self._link.tags["sha256"]}
        text = json.dumps(run | {"kind": self._kind, "status": status}, indent=2) + "\n"
        name = "run.json" if self._kind == "training" else f"{self._kind}_run.json"
        for folder in {self.output_dir, self.ckpt_dir} if self._kind == "training" else {self.output_dir}:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, text)

    def _close(self, error: str | None) -> None:
        del _OPEN[self.output_dir]
        status = "FINISHED" if error is None else "FAILED"
        self._measure_machine(always=True)
        if error is None:
            self._log_outputs()
        else:
            self.record.texts("tags", {"error": error})
        self.record.write("status", {"status": status})
        self.record.send(status=status)
        self._write_run_file(status)
        self._store.close()

    def _complete(self) -> None:
        self._is_complete = True

    def _iteration_completed(self, engine: Engine) -> None:
        losses = losses_of(engine.state.output)
        for key, value in losses.items():
            self._owner._losses.setdefault(key, []).append(value)
        values = {f"{key}_iteration": value for key, value in losses.items()} | learning_rates(engine)
        self._owner.record.metrics(values, step=engine.state.iteration, unit="iteration")  # sent with the epoch

    def _epoch_completed(self, engine: Engine) -> None:
        owner, step, key = self._owner, engine.state.epoch, getattr(engine.state, "key_metric_name", None) or ""
        values, best = scalars(engine.state.metrics), owner._store.best
        if owner is self:
            values |= {name: sum(losses) / len(losses) for name, losses in self._losses.items()}
            self._losses = {}
        has_key = owner._kind == "training" and owner is not self and math.isfinite(values.get(key, math.nan))
        if has_key and (key not in best or engine.metric_cmp_fn(values[key], best[key])):  # type: ignore[attr-defined]
            best[key] = values[key]
            values |= {f"best_{key}": values[key], f"best_{key}_epoch": float(step)}
        if owner._kind == "evaluation":  # a config names the metrics of its evaluator once, whatever it is run on
            values = named_by_split(values, self._config.get("split"))
        owner.record.metrics(values, step=step, unit="epoch")
        owner.record.send()

    def _measure_machine(self, *, always: bool = False) -> None:
        if self._monitor is not None and (values := self._monitor.measure(always=always)):
            self.record.metrics(values, step=self._monitor.count, unit="measurement")


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into `Terminated` meanwhile, unless the program has a handler of its own."""

    def stop(number: int, frame: Any) -> None:
        raise Terminated(128 + number)

    main = threading.current_thread() is threading.main_thread()
    if mine := main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _read_run(path: Path) -> dict[str, Any]:
    """Read the note that a run left in its folder; nothing where there is none, or, with a warning, a torn one."""
    if not path.is_file():
        return {}
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        run = None
    if isinstance(run, dict) and all(isinstance(run.get(key), str | None) for key in ("run_id", "run_name")):
        return run
    logger.warning("%s is torn, or no note of a run; it is left aside.", path)
    return {}
