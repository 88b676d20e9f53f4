"""Training in phases, as in transfer learning: which layers learn, how fast, and for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import Evaluator, Trainer
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

_PHASE_KEYS = {"name", "layers", "learning_rate", "max_epochs"}


class TrainingPhases:
    """Take a trainer through phases, each with its own layers, and a fresh optimiser, scheduler and early stopping.

    A phase ends when the validation loss has not improved for ``patience`` epochs, or after its ``max_epochs``; then
    the best weights so far are restored and the next phase begins. After the last one the training ends, with the best
    weights in the network. Within a phase the learning rate is multiplied by ``lr_factor`` whenever the validation loss
    has not improved for ``lr_patience`` epochs (torch's ``ReduceLROnPlateau``). Layers that do not learn are frozen: no
    gradients, and normalisation layers with running statistics use them and do not update them, as in Keras.

    Attach it after ``ValidationHandler`` and before the checkpoint. Validation must run after every epoch. Its
    ``state_dict`` makes a resumed training go on within its phase: give it to ``TrainingCheckpoint`` as
    ``lr_scheduler``.

    Args:
        network: the network, possibly wrapped in ``DistributedDataParallel``.
        optimizer: its optimizer over all parameters. "Fresh" empties its state and sets the learning rate.
        evaluator: the validation engine.
        phases: for each phase ``layers`` ("all", or names such as ["layer4.2", "fc"]), ``learning_rate``, and perhaps
            ``name`` and ``max_epochs``. Plain data, so that a recipe is a part of a config.
        monitor: name of the validation metric, which is better when smaller.
        patience: epochs without improvement after which a phase ends.
        lr_factor, lr_patience: see above.

    Raises:
        ValueError: a phase without ``layers`` or ``learning_rate``, an unknown key, a value that is none, or a layer
            that the network has not or that has no weights; in training, a metric that the evaluator does not have.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        evaluator: Evaluator,
        phases: Sequence[Mapping[str, Any]],
        *,
        monitor: str = "val_loss",
        patience: int = 10,
        lr_factor: float = 0.1,
        lr_patience: int = 5,
    ) -> None:
        self.network = network.module if isinstance(network, DistributedDataParallel) else network
        _check(phases, self.network)
        for name, epochs in (("patience", patience), ("lr_patience", lr_patience)):
            if epochs < 1:
                raise ValueError(f"{name} is {epochs}: expected 1 epoch or more.")
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.phases = phases
        self.monitor = monitor
        self.patience = patience
        self.lr_factor, self.lr_patience = lr_factor, lr_patience
        self.index = -1
        self.first_epoch = 0  # the last epoch before this phase
        self.best = float("inf")  # of this phase
        self.best_epoch = 0
        self.best_of_all = float("inf")
        self.best_weights: dict[str, torch.Tensor] = {}
        self.hooks: list[Any] = []

    def attach(self, engine: Trainer) -> None:
        """Register with the trainer ``engine``."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_STARTED, self.before_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.after_epoch)
        engine.add_event_handler(Events.COMPLETED, self.restore_best)

    def start(self, engine: Trainer) -> None:
        """Begin with the first phase, unless a resumed training is further already."""
        if self.index < 0:
            self._enter(0, engine)

    def before_epoch(self, engine: Trainer) -> None:
        """End a resumed training whose last phase had ended already."""
        if self.index + 1 == len(self.phases) and self._is_over(engine.state.epoch - 1):
            engine.logger.info("Phase %s, the last one, has ended before", self._name())
            engine.terminate()

    def after_epoch(self, engine: Trainer) -> None:
        """Judge the epoch by its validation, and end the phase or the training where it is due."""
        metrics = self.evaluator.state.metrics
        if self.monitor not in metrics:
            names = ", ".join(metrics) or "none; it must run before the phases, after every epoch"
            raise ValueError(f"monitor is {self.monitor!r}, metrics of the validation: {names}.")
        loss, epoch = float(metrics[self.monitor]), engine.state.epoch
        self.scheduler.step(loss)
        if loss < self.best:
            self.best, self.best_epoch = loss, epoch
        if loss < self.best_of_all:
            self.best_of_all = loss
            self.best_weights = {name: value.clone() for name, value in self.network.state_dict().items()}
        if not self._is_over(epoch):
            return
        engine.logger.info("Phase %s ends after epoch %d, best %s %.4f", self._name(), epoch, self.monitor, self.best)
        if self.index + 1 == len(self.phases):
            engine.terminate()
            return
        self.restore_best()
        self._enter(self.index + 1, engine)

    def restore_best(self) -> None:
        """Put the best weights so far into the network."""
        if self.best_weights:
            self.network.load_state_dict(self.best_weights)

    def _is_over(self, epoch: int) -> bool:
        """Tell whether this phase ends with ``epoch``, which has been judged."""
        longest = self._phase.get("max_epochs", float("inf"))
        idle = epoch - max(self.best_epoch, self.first_epoch)
        return idle >= self.patience or epoch - self.first_epoch >= longest

    def _enter(self, index: int, engine: Trainer) -> None:
        self.index, self.first_epoch = index, engine.state.epoch
        self.best, self.best_epoch = float("inf"), 0
        self.optimizer.state.clear()
        self._set_up()
        n_weights = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        engine.logger.info(
            "Phase %s begins, learning rate %g, %d weights learn", self._name(), self._phase["learning_rate"], n_weights
        )

    @property
    def _phase(self) -> Mapping[str, Any]:
        return self.phases[self.index]

    def _name(self) -> str:
        return str(self._phase.get("name", self.index + 1))

    def _set_up(self) -> None:
        """Freeze, thaw, and make optimizer and scheduler those of the phase."""
        freeze_all_but(self.network, self._phase["layers"], self.hooks)
        for group in self.optimizer.param_groups:
            group["lr"] = self._phase["learning_rate"]
        # torch reduces one epoch after its patience is used up, Keras in the epoch that uses it up.
        self.scheduler = ReduceLROnPlateau(self.optimizer, factor=self.lr_factor, patience=self.lr_patience - 1)

    def state_dict(self) -> dict[str, Any]:
        """Give all that a resumed training needs to go on within its phase."""
        names = ("index", "first_epoch", "best", "best_epoch", "best_of_all", "best_weights")
        return {name: getattr(self, name) for name in names} | {"scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``; the optimizer has loaded its own."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for name, value in state.items():
            if name != "scheduler":
                setattr(self, name, value)
        self._set_up()
        self.scheduler.load_state_dict(state["scheduler"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def freeze_all_but(network: nn.Module, layers: str | Sequence[str], hooks: list[Any]) -> None:
    """Let only the parameters of ``layers`` ("all" or names) learn; frozen normalisation keeps its running statistics.

    Args:
        network: changed in place.
        layers: which layers learn.
        hooks: handles of an earlier call, which are taken back, and then of this one.
    """
    while hooks:
        hooks.pop().remove()
    for name, parameter in network.named_parameters():
        parameter.requires_grad = _is_in(name, layers)
        parameter.grad = None
    for name, module in network.named_modules():
        # A trainer calls train() on the whole network before every step: what is frozen goes back to eval by itself.
        if isinstance(module, _NormBase) and not _is_in(name, layers):
            hooks.append(module.register_forward_pre_hook(_to_eval))


def _is_in(name: str, layers: str | Sequence[str]) -> bool:
    return layers == "all" or any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def _to_eval(module: nn.Module, _: Any) -> None:
    module.eval()


def _check(phases: Sequence[Mapping[str, Any]], network: nn.Module) -> None:
    if not isinstance(phases, Sequence) or not phases:
        raise ValueError(f"phases is {phases!r}: expected a list of one phase or more.")
    for number, phase in enumerate(phases, 1):
        if not isinstance(phase, Mapping):
            raise ValueError(f"phase {number} is {phase!r}: expected its keys and values.")
        if others := sorted(phase.keys() - _PHASE_KEYS):
            raise ValueError(f"phase {number}: unknown key {others[0]!r}, expected {', '.join(sorted(_PHASE_KEYS))}.")
        if absent := [key for key in ("layers", "learning_rate") if key not in phase]:
            raise ValueError(f"phase {number}: has no {absent[0]}.")
        rate, epochs = phase["learning_rate"], phase.get("max_epochs", 1)
        if not isinstance(rate, int | float) or not 0 < rate < float("inf"):
            raise ValueError(f"phase {number}: learning_rate is {rate!r}, expected a number above 0.")
        if not isinstance(epochs, int) or epochs < 1:
            raise ValueError(f"phase {number}: max_epochs is {epochs!r}, expected a whole number above 0.")
        _check_layers(number, phase["layers"], network)


def _check_layers(number: int, layers: str | Sequence[str], network: nn.Module) -> None:
    if layers == "all":
        return
    if isinstance(layers, str) or not layers:
        raise ValueError(f'phase {number}: layers is {layers!r}, expected "all" or a list of names.')
    modules = dict(network.named_modules())
    for layer in layers:
        if not layer or layer not in modules:
            top = ", ".join(name for name, _ in network.named_children())
            raise ValueError(f"phase {number}: the network has no layer {layer!r}; its layers are {top}.")
        if not list(modules[layer].parameters()):
            raise ValueError(f"phase {number}: layer {layer!r} has no weights that could learn.")
