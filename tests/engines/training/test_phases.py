import copy
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Loss
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler, from_engine
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import mobilenet_v3_small, resnet18

from clinbundles.engines.checkpoint import TrainingCheckpoint
from clinbundles.engines.training.epoch_seed import EpochSeed
from clinbundles.engines.training.phases import TrainingPhases

HEAD = {"layers": ["head"], "learning_rate": 1e-3}
ALL = {"layers": "all", "learning_rate": 1e-4}
ITERATIONS = 3  # an epoch


class Killed(Exception):
    """Stands for a process that dies."""


def small_network(*, affine: bool = True) -> nn.Module:
    """Convolution, batch normalisation, dropout and a head, which tell images (3, 8, 8) apart in three classes."""
    torch.manual_seed(0)
    features = OrderedDict(
        conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4, affine=affine), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1)
    )
    flat = OrderedDict(flatten=nn.Flatten(), drop=nn.Dropout(0.2))
    return nn.Sequential(OrderedDict(features=nn.Sequential(features), flat=nn.Sequential(flat), head=nn.Linear(4, 3)))


def items(side: int = 8) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [{"image": torch.rand(3, side, side, generator=generator) + k % 3, "label": k % 3} for k in range(12)]


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def changed(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def same(first: Any, second: Any) -> bool:
    """Whether two checkpoints hold the same, to the bit."""
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


@dataclass
class Run:
    """A training with what each of its epochs ended with; epochs count from 1."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    trainer: SupervisedTrainer
    evaluator: SupervisedEvaluator
    phases: TrainingPhases
    rates: list[float] = field(default_factory=list)  # in use during each epoch
    indices: list[int] = field(default_factory=list)  # of the phase of each epoch
    weights: list[dict[str, torch.Tensor]] = field(default_factory=list)  # as validated
    completed: int = 0


def prepare(
    recipe: Sequence[Mapping[str, Any]],
    *,
    network: nn.Module | None = None,
    losses: Sequence[float] | None = None,
    max_epochs: int = 40,
    ckpt_dir: Path | None = None,
    resume: bool = False,
    kill_in_epoch: int = 0,
    side: int = 8,
    **options: Any,
) -> Run:
    """Training on twelve images; ``losses`` are taken for those of the validation, epoch by epoch."""
    network = network or small_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.5)
    metric = {"val_loss": Loss(nn.functional.cross_entropy, output_transform=from_engine(["pred", "label"]))}
    evaluator = SupervisedEvaluator(
        "cpu",
        DataLoader(Dataset(items(side)), batch_size=4),
        network,
        key_val_metric=metric,
        metric_cmp_fn=lambda current, best: current < best,
    )
    phases = TrainingPhases(network, optimizer, evaluator, recipe, **options)
    handlers = [EpochSeed(3), ValidationHandler(1, evaluator), phases]
    if ckpt_dir:
        handlers.append(
            TrainingCheckpoint(ckpt_dir, network, optimizer, evaluator=evaluator, lr_scheduler=phases, resume=resume)
        )
    trainer = SupervisedTrainer(
        "cpu",
        max_epochs,
        DataLoader(Dataset(items(side)), batch_size=4, shuffle=True),
        network,
        optimizer,
        nn.CrossEntropyLoss(),
        train_handlers=handlers,
        decollate=False,
    )
    run = Run(network, optimizer, trainer, evaluator, phases)

    @trainer.on(Events.EPOCH_STARTED)
    def note_epoch(engine: Engine) -> None:
        run.rates.append(optimizer.param_groups[0]["lr"])
        run.indices.append(phases.index)

    @evaluator.on(Events.EPOCH_COMPLETED)
    def note_validation(engine: Engine) -> None:
        run.weights.append(snapshot(network))
        if losses is not None:
            engine.state.metrics["val_loss"] = losses[engine.state.epoch - 1]

    @trainer.on(Events.ITERATION_COMPLETED)
    def die(engine: Engine) -> None:
        if engine.state.epoch == kill_in_epoch and engine.state.iteration % ITERATIONS == 2:
            raise Killed

    @trainer.on(Events.COMPLETED)
    def count(engine: Engine) -> None:
        run.completed += 1

    return run


def train(recipe: Sequence[Mapping[str, Any]], **options: Any) -> Run:
    run = prepare(recipe, **options)
    run.trainer.run()
    return run


def test_the_first_phase_trains_the_head_and_nothing_else() -> None:
    network = small_network()
    before = snapshot(network)
    train([HEAD], network=network, max_epochs=2)
    assert changed(before, network.state_dict()) == {"head.weight", "head.bias"}


def test_a_frozen_normalisation_uses_its_statistics_though_the_trainer_calls_train() -> None:
    network = small_network()
    modes, called_with = [], []
    network.features.norm.register_forward_hook(lambda module, *_: modes.append(module.training))
    network.flat.register_forward_hook(lambda module, *_: called_with.append(module.training))
    before = snapshot(network)
    run = prepare([HEAD], network=network, max_epochs=2)
    run.trainer.run()
    assert called_with.count(True) == 2 * ITERATIONS
    assert not any(modes)
    assert not changed({k: v for k, v in before.items() if "norm" in k}, network.state_dict())


@pytest.mark.parametrize("layers", ["all", ["features", "head"], ["features.norm", "head"]])
def test_a_normalisation_that_learns_follows_its_batches(layers: Any) -> None:
    network = small_network()
    train([HEAD, {"layers": layers, "learning_rate": 1e-3}], network=network, patience=1, losses=[1, 1, 0.5, 1, 1])
    # Restored is the second phase's first epoch, which is the third of all.
    assert network.features.norm.num_batches_tracked == ITERATIONS
    assert network.features.norm.running_mean.abs().max() > 0.01


def test_a_normalisation_without_weights_is_frozen_with_the_layers_around_it() -> None:
    for layers, batches in ((["head"], 0), (["features"], ITERATIONS)):
        network = small_network(affine=False)
        train([{"layers": layers, "learning_rate": 1e-3}], network=network, max_epochs=1)
        assert network.features.norm.num_batches_tracked == batches


def test_the_second_phase_has_its_own_rate_and_an_optimizer_without_memory() -> None:
    run = prepare([HEAD, ALL], patience=1, losses=[1, 2, 1, 0.5, 0.4])
    memory = {}

    @run.trainer.on(Events.EPOCH_STARTED)
    def look(engine: Engine) -> None:
        memory[engine.state.epoch] = len(run.optimizer.state)

    run.trainer.state.max_epochs = 4
    run.trainer.run()
    assert run.indices == [0, 0, 1, 1]
    assert run.rates == [1e-3, 1e-3, 1e-4, 1e-4]
    assert memory == {1: 0, 2: 2, 3: 0, 4: len(list(run.network.parameters()))}
    assert {int(state["step"]) for state in run.optimizer.state.values()} == {2 * ITERATIONS}


def test_a_plateau_divides_the_rate_by_ten_after_five_epochs_without_improvement() -> None:
    losses = [1.0] + [1.5] * 12
    assert train([HEAD], patience=100, losses=losses, max_epochs=13).rates == pytest.approx(
        [1e-3] * 6 + [1e-4] * 5 + [1e-5] * 2
    )
    improving_at_5 = [1.0, 1.5, 1.5, 1.5, 1.5, 0.9] + [1.5] * 6
    assert train([HEAD], patience=100, losses=improving_at_5, max_epochs=12).rates == pytest.approx(
        [1e-3] * 11 + [1e-4]
    )


def test_every_phase_has_a_fresh_plateau() -> None:
    run = train([HEAD, ALL], patience=4, losses=[1] * 5 + [2] * 7, lr_patience=3)
    assert run.rates == pytest.approx([1e-3] * 4 + [1e-4] + [1e-4] * 4 + [1e-5])
    assert run.indices == [0] * 5 + [1] * 5


def test_a_phase_ends_after_its_patience_and_the_training_after_the_last_one() -> None:
    #      best in epoch 2; ends after 5 | best of its own in 7; ends after 10
    run = train([HEAD, ALL], patience=3, losses=[3, 2, 5, 2, 5, 9, 8, 8, 9, 9, 1])
    assert run.indices == [0] * 5 + [1] * 5
    assert run.trainer.state.epoch == 10
    assert run.completed == 1


def test_a_phase_may_have_a_longest_time() -> None:
    improving = [1 / (k + 1) for k in range(9)]
    run = train([{**HEAD, "max_epochs": 2, "name": "head"}, {**ALL, "max_epochs": 3}], losses=improving)
    assert run.indices == [0, 0, 1, 1, 1]
    assert not changed(run.weights[-1], run.network.state_dict())


def test_the_best_weights_are_restored_when_the_phase_changes_and_at_the_end() -> None:
    losses = [3, 2, 5, 5, 4, 1, 4, 4]
    run = prepare([HEAD, ALL], patience=2, losses=losses)
    starts = {}

    @run.trainer.on(Events.EPOCH_STARTED)
    def look(engine: Engine) -> None:
        starts[engine.state.epoch] = snapshot(run.network)

    run.trainer.run()
    assert run.indices == [0] * 4 + [1] * 4
    assert changed(run.weights[1], run.weights[3])
    assert not changed(run.weights[1], starts[5])
    assert not changed(run.weights[5], run.network.state_dict())
    assert changed(run.weights[5], run.weights[7])


def test_a_phase_that_only_harms_leaves_the_best_weights_of_the_one_before() -> None:
    run = train([HEAD, ALL], patience=2, losses=[1, 2, 2, 9, 8, 8, 8])
    assert run.trainer.state.epoch == 7
    assert not changed(run.weights[0], run.network.state_dict())


def test_a_training_that_is_cut_off_ends_with_its_best_weights_too() -> None:
    run = train([HEAD, ALL], losses=[1, 2, 3], max_epochs=3)
    assert not changed(run.weights[0], run.network.state_dict())
    assert changed(run.weights[0], run.weights[2])


def test_the_best_network_on_disk_is_the_one_that_the_training_ends_with(tmp_path: Path) -> None:
    recipe = [{**HEAD, "learning_rate": 0.3}, {**ALL, "learning_rate": 0.3}]
    run = train(recipe, patience=2, ckpt_dir=tmp_path)
    assert run.indices[-1] == 1
    assert not changed(torch.load(tmp_path / "model.pt", weights_only=True), run.network.state_dict())


def test_a_loss_that_is_no_number_ends_the_phase_and_is_never_the_best() -> None:
    nan = float("nan")
    run = train([HEAD, ALL], patience=2, losses=[1, nan, nan, nan, nan])
    assert run.indices == [0, 0, 0, 1, 1]
    assert not changed(run.weights[0], run.network.state_dict())


RECIPE = [
    {"layers": ["head"], "learning_rate": 0.05, "max_epochs": 4},
    {"layers": ["features.conv", "head"], "learning_rate": 0.03, "max_epochs": 4},
]


@pytest.mark.parametrize("epoch", [2, 3, 4, 5, 6, 8])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, epoch: int) -> None:
    options: dict[str, Any] = {"patience": 3, "lr_patience": 1, "losses": [3, 2, 2.5, 2.6, 1.9, 2.2, 1.8, 2]}
    unbroken = train(RECIPE, ckpt_dir=tmp_path / "unbroken", **options)
    with pytest.raises(Killed):
        train(RECIPE, ckpt_dir=tmp_path / "killed", kill_in_epoch=epoch, **options)
    resumed = train(RECIPE, ckpt_dir=tmp_path / "killed", resume=True, **options)
    assert unbroken.indices == [0] * 4 + [1] * 4
    assert len(set(unbroken.rates)) > 2  # a plateau was met
    assert resumed.indices == unbroken.indices[epoch - 1 :]
    assert resumed.rates == unbroken.rates[epoch - 1 :]
    assert not changed(unbroken.network.state_dict(), resumed.network.state_dict())
    assert same(*[torch.load(tmp_path / name / "resume.ckpt", weights_only=True) for name in ("unbroken", "killed")])


def test_frozen_statistics_stay_frozen_after_resuming(tmp_path: Path) -> None:
    before = snapshot(small_network())
    with pytest.raises(Killed):
        train(RECIPE, ckpt_dir=tmp_path, kill_in_epoch=6)
    run = train(RECIPE, ckpt_dir=tmp_path, resume=True)
    assert not changed({k: v for k, v in before.items() if "norm" in k}, run.network.state_dict())
    assert changed(before, run.network.state_dict()) >= {"features.conv.weight", "head.weight"}


def test_resuming_a_training_that_had_ended_adds_nothing_to_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {"patience": 1, "losses": [1, 2, 1, 2, *[0.1] * 6]}
    ended = train([HEAD, ALL], ckpt_dir=tmp_path, **options)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = train([HEAD, ALL], ckpt_dir=tmp_path, resume=True, **options)
    assert again.completed == 1
    assert not again.weights
    assert not changed(ended.network.state_dict(), again.network.state_dict())
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    options["patience"] = 2
    assert train([HEAD, ALL], ckpt_dir=tmp_path, resume=True, **options).trainer.state.epoch > 4


@pytest.mark.parametrize(
    ("make", "first", "second"),
    [
        (resnet18, ["fc"], ["layer4.1", "fc"]),
        (mobilenet_v3_small, ["classifier"], ["features.12", "classifier"]),
    ],
)
def test_a_recipe_fits_networks_of_torchvision(make: Any, first: list[str], second: list[str]) -> None:
    network = make(num_classes=3)
    before = snapshot(network)
    recipe = [{"layers": layers, "learning_rate": 1e-3, "max_epochs": 1} for layers in (first, second)]
    run = train(recipe, network=network, side=32, losses=[1, 0.5])
    learnt = [changed(before, weights) for weights in run.weights]
    for names, layers in zip(learnt, (first, second), strict=True):
        assert {layer for layer in layers if any(name.startswith(f"{layer}.") for name in names)} == set(layers)
        assert all(name.startswith(tuple(f"{layer}." for layer in layers)) for name in names)
    assert any("running_mean" in name for name in learnt[1])


DISTRIBUTED: dict[str, Any] = {"patience": 2, "losses": [3, 2, 5, 5, 4, 1, 4, 4]}


def test_phases_work_on_a_distributed_network(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as over there: a bias before batch norm learns from rounding alone, which Adam scales up
    alone = train([HEAD, ALL], ckpt_dir=tmp_path / "alone", **DISTRIBUTED)
    torch.set_num_threads(threads)
    # In a process of its own: the threads of a process group outlive it, and what is forked beside them may hang.
    one = {"LOCAL_RANK": "0", "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env={**os.environ, **one},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    together = torch.load(tmp_path / "resume.ckpt", weights_only=True)
    expected = torch.load(tmp_path / "alone" / "resume.ckpt", weights_only=True)
    assert together["progress"]["epoch"] == alone.trainer.state.epoch == 8
    assert together["lr_scheduler"]["index"] == 1
    torch.testing.assert_close(together["network"], expected["network"])


def test_a_recipe_is_left_as_it_was() -> None:
    recipe = [copy.deepcopy(HEAD)]
    train(recipe, max_epochs=1)
    assert recipe == [HEAD]


def test_a_metric_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="monitor is 'val_dice', metrics of the validation: val_loss"):
        train([HEAD], monitor="val_dice")


def test_phases_before_the_validation_say_so() -> None:
    run = prepare([HEAD])
    early = TrainingPhases(run.network, run.optimizer, run.evaluator, [HEAD])
    trainer = SupervisedTrainer(
        "cpu", 1, DataLoader(Dataset(items()), batch_size=4), run.network, run.optimizer, nn.CrossEntropyLoss(),
        train_handlers=[early, ValidationHandler(1, run.evaluator)], decollate=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="metrics of the validation: none; it must run before the phases"):
        trainer.run()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=0, world_size=1)
    wrapped = DistributedDataParallel(small_network(), find_unused_parameters=True)
    train([HEAD, ALL], network=wrapped, ckpt_dir=folder, **DISTRIBUTED)
    torch.distributed.destroy_process_group()
