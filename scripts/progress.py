"""What a person sees of a run: a line an epoch, a bar on a terminal, the metrics of an evaluation."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle import run as run_bundle
from monai.engines import Trainer
from tqdm import tqdm

from clinbundles.engines.outputs.summary import named_by_split
from clinbundles.scripts.bars import MinuteLines, in_words
from clinbundles.transforms.readers.folder import rest_below

# They tell at length what the lines here say or the command says of an error, or of a reader that nobody asked for.
TALKERS = (
    "monai.bundle.scripts",
    "monai.bundle.workflows",
    "monai.data.nvimgcodec_pydicom_plugin",
    "monai.handlers.StatsHandler",
)
# Values of a config that say where files lie or how fast a run is, not what comes out.
NO_MATTER = ("bundle_root", "device", "batch_size", "num_workers", "cache_rate", "initialize", "finalize", "name_knobs")
PLACES = ("_dir", "_path", "datalist")


def run_watched(
    files: Sequence[str], overrides: Mapping[str, Any], *, opening: str = "", following: str | None = None
) -> None:
    """Run configs by ``monai.bundle.run`` with a line an epoch in place of its log.

    Args:
        files: config files, those that are laid on others behind them.
        overrides: values by their ids. With ``logging_file``, the log comes as that file says.
        opening: a line to print once a training begins, and not of one that is refused before.
        following: the command to print at the end, in place of the config's ``next_command``.
    """
    if overrides.get("logging_file"):
        if opening:
            print(opening, flush=True)
        run_bundle(config_file=list(files), **overrides)
        return
    with quiet_logs(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="parsing config_file")  # MONAI reminds that a config is code
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        quiet = {**overrides, "logging_file": False}
        told = {"options": digest_options(files, overrides), "opening": opening, "following": following}
        workflow = type("Workflow", (WatchedWorkflow,), told)
        run_bundle(config_file=list(files), workflow_name=workflow, **quiet)


def digest_options(files: Sequence[str], overrides: Mapping[str, Any]) -> str:
    """Hash the values of a run's configs that its results depend on, files apart."""
    content = ConfigParser.load_config_files(list(files))
    own = {name: value for name, value in overrides.items() if name.replace("::", "#").partition("#")[0] in content}
    values = {
        name: value
        for name, value in {**content, **own}.items()
        if not name.startswith("_") and not name.endswith(PLACES) and name not in NO_MATTER
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


class WatchedWorkflow(ConfigWorkflow):
    """MONAI's workflow of a config, with an :class:`EngineWatch` at every engine."""

    options: str | None = None
    opening = ""
    following: str | None = None

    def initialize(self) -> Any:
        """Add the watches, then initialize as MONAI does."""
        trains = "trainer" in json.dumps(self.parser.get(self.run_id))
        for number, engine in enumerate(list(_engines(self.parser.get()))):
            key = "train_handlers" if "train_handlers" in engine else "val_handlers"
            handlers = engine[key]
            if isinstance(handlers, str):  # a reference, or an expression of several
                names = re.findall(r"@([\w#:]+)", handlers)
                lists = [value for name in names if isinstance(value := self.parser.get(name), list)]
                engine[key] = f"${handlers.removeprefix('$')} + [@watch_{number}]"
            else:
                lists = [handlers]
                engine[key] = [*handlers, f"@watch_{number}"]
            validators = [h["validator"] for part in lists for h in part if isinstance(h, dict) and "validator" in h]
            watch = {"_target_": f"{__name__}.EngineWatch", "prints_metrics": not trains, "options": self.options}
            watch["split"] = "@split" if "split" in self.parser else None
            watch["data"] = data = self._data_of(engine)
            watch["folder"] = data.get("dataset_dir") if data and "datalist" not in data else None
            watch["opening"] = _as_text(self.opening)
            self.parser[f"watch_{number}"] = watch | ({"validator": validators[0]} if validators else {})
        return super().initialize()

    def _data_of(self, engine: Mapping[str, Any]) -> dict[str, Any] | None:
        """Give what names the data of an evaluator, by the values of the config that they are made of."""
        data: Any = engine.get("val_data_loader")
        for key in ("dataset", "data"):
            part = self.parser.get(data[1:]) if isinstance(data, str) and data[:1] == "@" else data
            data = part.get(key) if isinstance(part, dict) else None
        if isinstance(data, dict) and "datalist" in data:  # which may name other splits to compare with, too
            values = {name: data[name] for name in ("datalist", "dataset_dir", "split") if name in data}
        else:
            names = re.findall(r"@(datalist|dataset_dir|\w*split)\b", json.dumps(data))
            values = {"split" if name.endswith("split") else name: f"@{name}" for name in names}
        return {"_target_": f"{__name__}.name_data", "bundle_root": "@bundle_root", **values} if values else None

    def finalize(self) -> Any:
        """Put the whole command that follows in its place, only now: the record of the run has its config without."""
        if self.following is not None:
            self.parser["next_command"] = _as_text(self.following)
        return super().finalize()


def _as_text(text: str) -> str:
    """Write text so that a config takes it as it is, whatever is in it."""
    return "$" + ascii(text).replace("#", r"\x23").replace("@", r"\x40")


def name_data(bundle_root: str, *, dataset_dir: Any = None, datalist: Any = None, split: str | None = None) -> str:
    """Name the data of an evaluation or inference: the datalist and its split, or the folder.

    Args:
        bundle_root: folder of the bundle; the samples in it are named as its own.
        dataset_dir: folder of the images.
        datalist: file that lists them; None where all of the folder are read.
        split: of the datalist.
    """
    source = dataset_dir if datalist is None else datalist
    is_own = isinstance(source, str) and Path(source).resolve().is_relative_to(Path(bundle_root).resolve() / "samples")
    name = "the bundle's own samples" if is_own else str(source) if isinstance(source, str) else "images handed over"
    return f"{split} split of {name}" if split else name


class EngineWatch:
    """Print a line for every epoch of a training; of an evaluation one a minute, and the metrics at its end.

    An epoch's line has the loss, the validation, the best so far and the time. Only the first of several processes
    prints. Attach it last: the line of an epoch has its validation.

    Args:
        validator: the engine that validates a training.
        prints_metrics: print of an evaluation, where a validation inside a training leaves it to the line.
        options: hash of the run's options, which a folder of outputs is marked with.
        split: that an evaluation is of, by which its metrics are called.
        data: the name of its data, which stands before the number of its images.
        folder: whose images are the data; what lies deeper and is not among them is said behind that number.
        opening: a line for the begin of a training.
    """

    def __init__(
        self,
        *,
        validator: Engine | None = None,
        prints_metrics: bool = True,
        options: str | None = None,
        split: str | None = None,
        data: str | None = None,
        folder: str | None = None,
        opening: str = "",
    ) -> None:
        self.data, self.folder, self.opening = data, folder, opening
        self.validator, self.prints_metrics, self.options, self.split = validator, prints_metrics, options, split
        self.losses: dict[str, list[float]] = {}
        self.seconds: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Watch an engine, in place of its own log."""
        engine.logger.addFilter(_nothing)
        state: Any = engine.state
        state.run_options, state.run_data = self.options, self.data
        if os.environ.get("RANK", "0") != "0":
            return
        if isinstance(engine, Trainer):
            engine.add_event_handler(Events.STARTED, self.open)
            engine.add_event_handler(Events.EPOCH_STARTED, self.start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.count)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.print_epoch)
        elif self.prints_metrics:
            if self.folder is not None:
                items = getattr(getattr(getattr(engine, "data_loader", None), "dataset", None), "data", ())
                are_files = all(isinstance(item, Mapping) and isinstance(item.get("image"), str) for item in items)
                state.run_rest = rest_below(self.folder, items) if items and are_files else ""
            engine.add_event_handler(Events.STARTED, self.start_lines)
            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self.lines.count())
            engine.add_event_handler(Events.COMPLETED, self.print_metrics)

    def open(self) -> None:
        """Print the line for the begin of a training."""
        if self.opening:
            print(self.opening, flush=True)

    def start_lines(self, engine: Engine) -> None:
        """Begin an evaluation."""
        self.lines = MinuteLines("predicting", "batches", engine.state.epoch_length or 0)

    def start(self, engine: Engine) -> None:
        """Begin an epoch."""
        self.losses, self.started = {}, time.monotonic()
        name = f"epoch {engine.state.epoch} of {engine.state.max_epochs}"
        self.bar = tqdm(total=engine.state.epoch_length, desc=name, unit="batch", leave=False, disable=None)

    def count(self, engine: Engine) -> None:
        """Note the losses of a batch."""
        output: Any = engine.state.output[0] if isinstance(engine.state.output, list) else engine.state.output
        for name, value in output.items():
            if "loss" in name:
                self.losses.setdefault(name, []).append(float(torch.as_tensor(value).detach()))
        self.bar.update()
        if self.bar.n == self.bar.total:
            self.bar.close()

    def print_epoch(self, engine: Engine) -> None:
        """Print the line of an epoch, with its validation if there was one."""
        self.bar.close()
        self.seconds.append(time.monotonic() - self.started)
        trained: Any = engine.state
        epoch, last = trained.epoch, trained.max_epochs
        parts = [f"{name} {math.fsum(values) / len(values):.4f}" for name, values in self.losses.items()]
        parts += [f"{name} {value:.4g}" for name, value in trained.metrics.items() if isinstance(value, int | float)]
        state: Any = None if self.validator is None else self.validator.state
        if state is not None and state.epoch == epoch and (name := getattr(state, "key_metric_name", None)):
            best = f"best {state.best_metric:.4f} in epoch {state.best_metric_epoch}"
            best = "best so far" if state.best_metric_epoch == epoch else best
            parts.append(f"{name} {float(state.metrics[name]):.4f} ({best})")
        left = math.fsum(self.seconds) / len(self.seconds) * (last - epoch)
        parts.append(f"{in_words(self.seconds[-1])}" + (f", {in_words(left)} left" if left else ""))
        print(f"epoch {epoch} of {last}: {', '.join(parts)}", flush=True)

    def print_metrics(self, engine: Engine) -> None:
        """Print the metrics that are numbers."""
        numbers = {name: value for name, value in engine.state.metrics.items() if isinstance(value, int | float)}
        if numbers:
            named = named_by_split(numbers, self.split).items()
            print(", ".join(f"{name} {value:.4f}" for name, value in named), flush=True)


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Let through warnings alone, meanwhile, and nothing of the TALKERS."""
    loggers = [logging.getLogger(name) for name in TALKERS]
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    for logger in loggers:
        logger.addFilter(_nothing)
    try:
        yield
    finally:
        logging.disable(before)
        for each in logging.root.manager.loggerDict.values():
            if isinstance(each, logging.Logger):  # an engine's too
                each.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _engines(config: Any) -> Iterator[dict[str, Any]]:
    """The configs of engines that have handlers, anywhere in a config."""
    if isinstance(config, dict):
        if {"train_handlers", "val_handlers"} & config.keys():
            yield config
        for value in config.values():
            yield from _engines(value)
    elif isinstance(config, list):
        for value in config:
            yield from _engines(value)
