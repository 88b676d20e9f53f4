"""Checkpoints that survive a kill, and the loading of weights by a run that says which."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines import Evaluator, Trainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..nets.weights import load_weights
from .data_hash import describe_data
from .folder_lock import lock_folder, unlock_folder
from .outputs.files import remove_partials, replacing, set_aside
from .training.initial_weights import describe_start, start_facts
from .weights_card import card_path, check_options, describe_unfitted, read_card, weights_sentence, write_card

BEGUN = {"epoch": 0}  # progress of a training whose first epoch is not over


def _save(content: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # As a stream, because a file's name would get into it, and two files of the same weights would differ.
        with replacing(path) as partial, partial.open("wb") as stream:
            torch.save(content, stream)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(f"{path}: cannot be written whole, as on a full disk.") from error


class TrainingCheckpoint:
    """Write ``model.pt`` when validation improves, and after every epoch ``resume.ckpt``, to go on from when asked.

    ``model.pt`` is the network's plain state dict. ``resume.ckpt`` also holds optimizer, scheduler, gradient scaler,
    epoch and the best metric so far; it does not end in .pt, for a host offers every such file as a model. Both load
    with ``weights_only=True`` and are written atomically, by rank 0 alone.
    MONAI's ``CheckpointSaver`` forgets the best metric on resuming unless loaded by hand, and writes in place.

    List it after ``ValidationHandler`` so that an epoch's checkpoint knows that epoch's validation. The last epoch is
    always validated, whatever the interval: a training that ends has a ``model.pt``.

    Args:
        ckpt_dir: folder of both files.
        network: the network, possibly wrapped in ``DistributedDataParallel``.
        optimizer: the optimizer.
        evaluator: the validation engine whose ``best_metric`` decides; None, or one that has no images, makes
            ``model.pt`` the last network.
        lr_scheduler: scheduler with a state dict, if there is one.
        more: further objects with a state dict that ``resume.ckpt`` shall hold, by name.
        options: of the training, by name, which a resumed one must share.
        datalist: file of the data, which a resumed training must share; one that is not there is not compared.
        initial_weights: files that the network started from, which the card of ``model.pt`` names with their warnings;
            of a resumed training those that it began with.
        resume: go on from ``resume.ckpt``, so that one command can be given again and again: without that file the
            training begins, after its last epoch nothing is left to do, and both are said. A torn file is set aside.

    Raises:
        ValueError: ``resume.ckpt`` is none, comes from a training with other options or data (its batch size, network,
            learning rate and parts are compared too), or is past ``max_epochs``; at the end of an epoch, a weight is
            not finite: the files of the epoch before are kept; another process trains into the folder.
    """

    def __init__(
        self,
        ckpt_dir: str | os.PathLike,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        evaluator: Evaluator | None = None,
        lr_scheduler: Any = None,
        more: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        datalist: str | os.PathLike | None = None,
        initial_weights: Sequence[str | os.PathLike | None] = (),
        resume: bool = False,
    ) -> None:
        self.best_path = Path(ckpt_dir) / "model.pt"
        self.resume_path = Path(ckpt_dir) / "resume.ckpt"
        self.network = network.module if isinstance(network, DistributedDataParallel) else network
        self.has_no_images = evaluator is not None and _is_empty(evaluator.data_loader)
        self.evaluator = None if self.has_no_images else evaluator
        self.resume = resume
        self.options = {name: json.dumps(value, default=str) for name, value in (options or {}).items()}
        self.data = describe_data(datalist)
        self.starts = [start for each in initial_weights if each is not None for start in describe_start(each)]
        self.objects: dict[str, Any] = {"network": self.network, "optimizer": optimizer}
        if lr_scheduler is not None:
            self.objects["lr_scheduler"] = lr_scheduler
        self.objects |= {name: item for name, item in (more or {}).items() if item is not None}

    def attach(self, engine: Trainer) -> None:
        """Register with the trainer ``engine``."""
        if self.has_no_images and idist.get_rank() == 0:
            print("no validation images: the last epoch's weights are kept", flush=True)
        scaler = getattr(engine, "scaler", None)
        if scaler is not None:
            self.objects["scaler"] = scaler
        engine.add_event_handler(Events.STARTED, self.lock)
        engine.add_event_handler(Events.STARTED, self.load_or_begin if self.resume else self.check_fresh)
        engine.add_event_handler(Events.COMPLETED, self.unlock)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self.save_best)

    def lock(self) -> None:
        """Keep another training out of the folder, and remove what a killed one left half written."""
        if idist.get_rank() == 0:
            lock_folder(self.best_path.parent, doing="training")
            remove_partials(self.best_path, card_path(self.best_path), self.resume_path)

    def unlock(self) -> None:
        """Let another training have the folder."""
        unlock_folder(self.best_path.parent)

    def load_or_begin(self, engine: Trainer) -> None:
        """Go on from ``resume.ckpt`` where there is a whole one."""
        if idist.get_rank() == 0:
            set_torn_aside(self.best_path.parent)
        idist.barrier()  # the other processes look only then
        if self.resume_path.is_file() and (content := self._read())["progress"]["epoch"]:
            self.load(engine, content)
        else:
            if idist.get_rank() == 0:
                print(f"no checkpoint {self.resume_path} yet: the training begins.", flush=True)
            if not self.resume_path.is_file():
                self.check_fresh(engine)

    def check_fresh(self, engine: Trainer) -> None:
        """Say that another training lies in the folder, before the first checkpoint of this one takes its place."""
        older = [path.name for path in (self.best_path, self.resume_path) if path.is_file()]
        if older:
            logging.getLogger(__name__).warning(
                "%s in %s of another training, in whose place the first checkpoint of this one comes; "
                "--resume true would go on with it, another --ckpt_dir keep it.",
                " and ".join(older),
                self.best_path.parent,
            )

    def check_weights(self, epoch: int) -> None:
        """Stop a training that has diverged before its checkpoint takes the place of a good one."""
        weights = dict(self.network.named_parameters())
        each = [torch.isfinite(weight).all() for weight in weights.values()]
        finite = torch.stack(each).tolist() if each else []  # one wait for the device
        if not all(finite):
            raise ValueError(
                f"the weight {list(weights)[finite.index(False)]} is not finite after epoch {epoch}: the training has "
                f"diverged, and {self.best_path.parent} keeps the checkpoint of the epoch before; a smaller "
                "learning_rate may help."
            )

    def save_best(self, evaluator: Evaluator) -> None:
        """Write ``model.pt`` if the validation just finished is the best so far."""
        self.check_weights(evaluator.state.epoch)
        if evaluator.state.best_metric_epoch == evaluator.state.epoch and idist.get_rank() == 0:
            self._save_model()

    def _save_model(self) -> None:
        if not self.resume_path.is_file():  # one that is killed before its first checkpoint begins again in this folder
            _save({"progress": BEGUN}, self.resume_path)
        _save(self.network.state_dict(), self.best_path)
        facts = {"options": {k: json.loads(v) for k, v in self.options.items()}, **self.data}
        write_card(self.best_path, facts | start_facts(self.starts))

    def save(self, trainer: Trainer) -> None:
        """Write ``resume.ckpt``, after a validation of the last epoch if there was none."""
        last = trainer.state.epoch == trainer.state.max_epochs
        if last and self.evaluator is not None and self.evaluator.state.epoch != trainer.state.epoch:
            self.evaluator.run(trainer.state.epoch)
        self.check_weights(trainer.state.epoch)
        if idist.get_rank() != 0:
            return
        content = {name: item.state_dict() for name, item in self.objects.items()}
        content["progress"] = {
            "epoch": trainer.state.epoch,
            "epoch_length": trainer.state.epoch_length,
            "batch_size": _batch_size(trainer),
            "options": self.options,
            "data": self.data,
            "initial_weights": self.starts,
        }
        if self.evaluator is not None:
            content["best"] = {
                "best_metric": float(self.evaluator.state.best_metric),
                "best_metric_epoch": int(self.evaluator.state.best_metric_epoch),
            }
        else:
            self._save_model()
        _save(content, self.resume_path)

    def load(self, trainer: Trainer, content: Mapping[str, Any]) -> None:
        """Restore everything that ``resume.ckpt`` holds into the objects, the trainer and the evaluator."""
        epoch, epoch_length = content["progress"]["epoch"], content["progress"]["epoch_length"]
        self._compare(content["progress"])
        batch_size = content["progress"].get("batch_size")  # which older files lack
        if batch_size is not None and batch_size != _batch_size(trainer):
            raise ValueError(
                f"{self.resume_path}: batch_size {batch_size}, this training has {_batch_size(trainer)}: same data and "
                "batch size are needed to resume."
            )
        if epoch_length != trainer.state.epoch_length:
            raise ValueError(
                f"{self.resume_path}: {epoch_length} iterations an epoch, this training has "
                f"{trainer.state.epoch_length}: same data and batch size are needed to resume."
            )
        if epoch > trainer.state.max_epochs:
            raise ValueError(
                f"{self.resume_path}: epoch {epoch} is done, max_epochs is {trainer.state.max_epochs}: nothing is left."
            )
        for name, item in self.objects.items():
            self._restore(name, item, content[name])
        self.starts = content["progress"].get("initial_weights", self.starts)  # which older files lack
        trainer.state.epoch = epoch
        trainer.state.iteration = epoch * epoch_length
        if self.evaluator is not None:
            for name, value in content["best"].items():
                setattr(self.evaluator.state, name, value)
        trainer.logger.info("Resumed after epoch %d from %s", epoch, self.resume_path)
        if epoch == trainer.state.max_epochs and idist.get_rank() == 0:
            print(f"{self.resume_path}: all {epoch} epochs are done, nothing is left to train.", flush=True)

    def _compare(self, progress: Mapping[str, Any]) -> None:
        earlier = progress.get("options", {})  # which older files lack
        datalist, own = (data.get("datalist_sha256") for data in (progress.get("data", {}), self.data))
        if datalist and own and datalist != own:
            raise ValueError(
                f"{self.resume_path}: begun with another content of the datalist ({datalist[:12]}, and this training "
                f"has {own[:12]}): give that, or another ckpt_dir to begin anew."
            )
        for name in [name for name in earlier if self.options.get(name, earlier[name]) != earlier[name]]:
            raise ValueError(
                f"{self.resume_path}: begun with {name} {earlier[name]}, and this training has {self.options[name]}: "
                f"give the {name} that it began with, or another ckpt_dir to begin anew."
            )

    def _read(self) -> dict[str, Any]:
        """Read ``resume.ckpt``, and see that it has the parts of this training, no more and no fewer."""
        try:
            content = torch.load(self.resume_path, map_location="cpu", weights_only=True)
        except Exception as error:  # bytes that are no such file can raise anything
            raise ValueError(f"{self.resume_path}: cannot be read, so that nothing is there to resume.") from error
        if not isinstance(content, Mapping) or "progress" not in content:
            raise ValueError(f"{self.resume_path}: no checkpoint of a training.")
        if content["progress"] == BEGUN:
            return dict(content)
        parts = self.objects.keys() | ({"best"} if self.evaluator is not None else set())
        for name in sorted(parts ^ (content.keys() - {"progress"})):
            has = "lacks" if name in parts else "has"
            raise ValueError(f"{self.resume_path}: {has} the part {name!r}, so it is of a training with other options.")
        return dict(content)

    def _restore(self, name: str, item: Any, state: Any) -> None:
        before = _learning_rates(item)
        try:
            item.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[-1].strip().rstrip(".")
            raise ValueError(
                f"{self.resume_path}: {name} is that of a training with other options ({reason})."
            ) from error
        if (rates := _learning_rates(item)) == before:
            return
        # Some schedulers keep no initial rate, and have changed the only one there is.
        if "lr_scheduler" not in self.objects or all("initial_lr" in group for group in item.param_groups):
            raise ValueError(
                f"{self.resume_path}: {name} has the learning rate {rates[0]:g}, this training {before[0]:g}: give the "
                "learning_rate that it began with."
            )


def _learning_rates(item: Any) -> list[float]:
    """List the rates that the groups of an optimizer began with; of anything else there are none."""
    if not isinstance(item, torch.optim.Optimizer):
        return []
    return [group.get("initial_lr", group["lr"]) for group in item.param_groups]


def _is_empty(loader: Any) -> bool:
    """Tell whether there is nothing to load: of several processes in all, not only in this one."""
    dataset = getattr(loader, "dataset", loader)
    return hasattr(dataset, "__len__") and not len(dataset)


def _batch_size(trainer: Trainer) -> int | None:
    return getattr(trainer.data_loader, "batch_size", None)


def set_torn_aside(ckpt_dir: str | os.PathLike) -> None:
    """Rename what a kill or a full disk has torn in the folder of a training, which then begins again.

    Without the best network its later epochs are of no use: ``resume.ckpt`` goes with a torn ``model.pt``.
    """
    best, resume = (Path(ckpt_dir) / name for name in ("model.pt", "resume.ckpt"))
    torn = {path: path.is_file() and not zipfile.is_zipfile(path) for path in (best, resume)}
    for path in (best, resume):
        if torn[path]:
            set_aside(path, "is torn, as by a kill or a full disk")
        elif torn[best] and path.is_file():
            set_aside(path, f"is of no use without {best.name}")


def epochs_done(ckpt_dir: str | os.PathLike) -> int:
    """Read how many epochs a training has behind it by the ``resume.ckpt`` of its folder; 0 where there is none.

    Files that are torn are set aside first.
    """
    set_torn_aside(ckpt_dir)
    path = Path(ckpt_dir) / "resume.ckpt"
    return torch.load(path, map_location="cpu", weights_only=True)["progress"]["epoch"] if path.is_file() else 0


class WeightsLoader:
    """Load weights before an evaluator's first batch, and print their file and the first digits of its SHA-256.

    Where they have a card (:mod:`.weights_card`), its ``warning`` is printed, and ``options`` are compared with it; a
    temperature that the card lacks is said. The state of the engine keeps hash, warning and that as ``weights``, from
    where a table of its images takes them.

    One loader may serve several engines: it loads once.

    Args:
        path: file of a state dict; None leaves the network as it is.
        network: changed in place.
        options: of this run, by name, that must be those of the training.

    Raises:
        FileNotFoundError, ValueError: as :func:`..nets.weights.load_weights`, when the engine starts; the weights were
            trained with other options.
    """

    def __init__(
        self,
        path: str | os.PathLike | None,
        network: nn.Module | None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.network = network
        self.options = options or {}
        self.loaded = False
        self.sentence = ""

    def attach(self, engine: Evaluator) -> None:
        """Register with ``engine``."""
        engine.add_event_handler(Events.STARTED, self.start)

    def start(self, engine: Evaluator) -> None:
        """Load the weights, and leave in the engine's state which they are."""
        self.load()
        if self.sentence:
            sentences = getattr(engine.state, "weights", ())
            engine.state.weights = tuple(dict.fromkeys((*sentences, self.sentence)))

    def load(self) -> None:
        """Load the weights, if there are any left to load."""
        if self.loaded or self.path is None or self.network is None:
            return
        path = Path(self.path)
        card = read_card(path) if path.is_file() else {}
        check_options(path, card, self.options)
        load_weights(self.network, path)
        digits = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        print(f"weights: {path}, sha256 {digits}{'' if card else ', without a card'}", flush=True)
        if warning := card.get("warning"):
            print(warning, flush=True)
        if unfitted := describe_unfitted(card, self.options):
            print(unfitted, flush=True)
        self.sentence = weights_sentence(digits, card, self.options)
        self.loaded = True


class WeightsWriter:
    """Write the weights of a network once an evaluator is done, as one does that sets a threshold among them.

    Args:
        path: the file, a state dict.
        network: the network.
    """

    def __init__(self, path: str | os.PathLike, network: nn.Module) -> None:
        self.path = Path(path)
        self.network = network

    def attach(self, engine: Evaluator) -> None:
        """Register with ``engine``."""
        engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self) -> None:
        """Write the file."""
        _save(self.network.state_dict(), self.path)
        print(f"weights: {self.path}", flush=True)
