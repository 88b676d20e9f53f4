import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, ValidationHandler, from_engine
from monai.metrics import MSEMetric
from monai.transforms import RandGaussianNoised
from torch import nn

from clinbundles.engines.checkpoint import TrainingCheckpoint, WeightsLoader, epochs_done
from clinbundles.engines.training.epoch_seed import EpochSeed
from clinbundles.engines.weights_card import read_card, write_card


class Killed(Exception):
    """Stands for a process that dies."""


def train(
    ckpt_dir: Path,
    *,
    max_epochs: int,
    resume: bool = False,
    workers: int = 0,
    kill_in_epoch: int = 0,
    val_interval: int = 1,
    learning_rate: float = 0.01,
    units: int = 8,
    batch_size: int = 4,
    diverge_in_epoch: int = 0,
    n_validation: int = 12,
    options: dict | None = None,
    datalist: Path | None = None,
    initial_weights: Sequence[Path | None] = (),
) -> dict:
    """Train a small network with dropout, random transforms and shuffling; return what it ended with."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    items = [
        {"image": torch.rand(4, generator=generator), "label": torch.rand(1, generator=generator)} for _ in range(12)
    ]
    dataset = CacheDataset(items, RandGaussianNoised("image", prob=0.7), progress=False)
    network = nn.Sequential(nn.Linear(4, units), nn.Dropout(0.3), nn.Linear(units, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    metric = {"error": IgniteMetricHandler(metric_fn=MSEMetric(), output_transform=from_engine(["pred", "label"]))}
    evaluator = SupervisedEvaluator(
        "cpu",
        DataLoader(CacheDataset(items[:n_validation], [], progress=False), batch_size=4),
        network,
        key_val_metric=metric,
    )
    trainer = SupervisedTrainer(
        "cpu",
        max_epochs,
        DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=workers),
        network,
        optimizer,
        nn.MSELoss(),
        train_handlers=[
            EpochSeed(3),
            *([ValidationHandler(val_interval, evaluator)] if n_validation else []),
            TrainingCheckpoint(
                ckpt_dir,
                network,
                optimizer,
                evaluator=evaluator,
                options=options,
                datalist=datalist,
                initial_weights=initial_weights,
                resume=resume,
            ),
        ],
    )
    if kill_in_epoch:

        @trainer.on(Events.ITERATION_COMPLETED)
        def die(engine: Engine) -> None:
            if engine.state.epoch == kill_in_epoch and engine.state.iteration % 3 == 2:
                raise Killed

    if diverge_in_epoch:

        @trainer.on(Events.ITERATION_STARTED)
        def diverge(engine: Engine) -> None:
            if engine.state.epoch == diverge_in_epoch:
                network[2].weight.data[0, 1] = float("nan")

    trainer.run()
    return {
        "network": copy.deepcopy(network.state_dict()),
        "best": (evaluator.state.best_metric, evaluator.state.best_metric_epoch),
        "epoch": trainer.state.epoch,
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_training_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path, workers: int) -> None:
    unbroken = train(tmp_path / "unbroken", max_epochs=5, workers=workers)
    with pytest.raises(Killed):
        train(tmp_path / "killed", max_epochs=5, workers=workers, kill_in_epoch=4)
    assert [epochs_done(tmp_path / name) for name in ("unbroken", "killed", "never begun")] == [5, 3, 0]
    resumed = train(tmp_path / "killed", max_epochs=5, workers=workers, resume=True)
    assert resumed["epoch"] == 5
    assert resumed["best"] == unbroken["best"]
    for name, weight in unbroken["network"].items():
        assert torch.equal(weight, resumed["network"][name]), name


def test_a_training_killed_before_its_first_checkpoint_begins_again_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def die(self: TrainingCheckpoint, trainer: object) -> None:
        raise KeyboardInterrupt

    unbroken = train(tmp_path / "unbroken", max_epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingCheckpoint, "save", die)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", max_epochs=2, resume=True)
    assert (tmp_path / "killed" / "model.pt").is_file()
    assert (tmp_path / "killed" / "resume.ckpt").is_file(), "which tells the folder from one of weights alone"
    assert epochs_done(tmp_path / "killed") == 0
    again = train(tmp_path / "killed", max_epochs=2, resume=True)
    assert all(torch.equal(value, unbroken["network"][name]) for name, value in again["network"].items())
    assert "of another training" not in caplog.text


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    weights = [train(tmp_path / str(i), max_epochs=2)["network"]["0.weight"] for i in range(2)]
    assert torch.equal(*weights)
    unseeded = EpochSeed.__call__
    try:
        EpochSeed.__call__ = lambda self, engine: unseeded(EpochSeed(4), engine)  # type: ignore[method-assign]
        assert not torch.equal(weights[0], train(tmp_path / "other", max_epochs=2)["network"]["0.weight"])
    finally:
        EpochSeed.__call__ = unseeded  # type: ignore[method-assign]


def test_the_best_model_is_not_replaced_by_a_worse_one_after_resuming(tmp_path: Path) -> None:
    train(tmp_path, max_epochs=2)
    state = torch.load(tmp_path / "resume.ckpt", weights_only=True)
    state["best"] = {"best_metric": 1e9, "best_metric_epoch": 1}
    torch.save(state, tmp_path / "resume.ckpt")
    before = (tmp_path / "model.pt").read_bytes()
    train(tmp_path, max_epochs=4, resume=True)
    assert (tmp_path / "model.pt").read_bytes() == before


def test_both_files_load_without_pickled_code_and_no_partial_file_stays(tmp_path: Path) -> None:
    train(tmp_path, max_epochs=1)
    assert set(torch.load(tmp_path / "model.pt", weights_only=True)) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert torch.load(tmp_path / "resume.ckpt", weights_only=True)["progress"] == {
        "epoch": 1,
        "epoch_length": 3,
        "batch_size": 4,
        "options": {},
        "data": {},
        "initial_weights": [],
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.pt", "resume.ckpt"]


def test_the_same_weights_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(tmp_path / name, max_epochs=1)
    assert (tmp_path / "a" / "model.pt").read_bytes() == (tmp_path / "b" / "model.pt").read_bytes()


def test_one_command_begins_goes_on_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(tmp_path, max_epochs=2, resume=True)
    assert "resume.ckpt yet: the training begins." in capsys.readouterr().out
    train(tmp_path / "other", max_epochs=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert before["model.pt"] == (tmp_path / "other" / "model.pt").read_bytes()
    train(tmp_path, max_epochs=2, resume=True)
    assert "all 2 epochs are done, nothing is left to train." in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    with pytest.raises(ValueError, match="epoch 2 is done, max_epochs is 1: nothing is left"):
        train(tmp_path, max_epochs=1, resume=True)


@pytest.mark.parametrize("val_interval", [1, 5])
def test_a_training_that_diverges_stops_and_keeps_the_files_of_the_epoch_before(
    tmp_path: Path, val_interval: int
) -> None:
    train(tmp_path / "two", max_epochs=2, val_interval=val_interval)
    with pytest.raises(ValueError, match=r"0.weight is not finite after epoch 3: .* keeps the checkpoint"):
        train(tmp_path / "diverged", max_epochs=4, val_interval=val_interval, diverge_in_epoch=3)
    assert epochs_done(tmp_path / "diverged") == 2
    name = "model.pt" if val_interval == 1 else "resume.ckpt"
    kept, expected = (torch.load(tmp_path / run / name, weights_only=True) for run in ("diverged", "two"))
    kept, expected = (content.get("network", content) for content in (kept, expected))
    assert all(torch.equal(weight, expected[name]) for name, weight in kept.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.02}, r"optimizer has the learning rate 0\.01, this training 0\.02"),
        ({"units": 9}, "network is that of a training with other options .*size mismatch"),
        ({"batch_size": 6}, "batch_size 4, this training has 6"),
    ],
)
def test_resuming_with_other_options_is_refused_and_changes_no_file(
    tmp_path: Path, options: dict, message: str
) -> None:
    train(tmp_path, max_epochs=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=rf"resume\.ckpt: {message}"):
        train(tmp_path, max_epochs=2, resume=True, **options)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_training_is_resumed_with_its_own_options_and_data_alone(tmp_path: Path) -> None:
    datalist = tmp_path / "datalist.json"
    datalist.write_text('{"training": [1, 2]}')
    options = {"seed": 0, "sizes": [64, 32], "arm": "original"}
    train(tmp_path, max_epochs=1, options=options, datalist=datalist)
    resumed = {"max_epochs": 2, "resume": True, "datalist": datalist}
    for name, value, message in [
        ("seed", 5, "begun with seed 0, and this training has 5"),
        ("sizes", (64, 16), r"begun with sizes \[64, 32\], and this training has \[64, 16\]"),
        ("arm", None, 'begun with arm "original", and this training has null'),
    ]:
        with pytest.raises(ValueError, match=rf"resume\.ckpt: {message}: give the {name} .* or another ckpt_dir"):
            train(tmp_path, **resumed, options=options | {name: value})
    train(tmp_path, **resumed, options=options | {"sizes": (64, 32), "later": 1})  # an option that is new
    datalist.write_text('{"training": [1, 3]}')
    with pytest.raises(ValueError, match=r"begun with another content of the datalist \([0-9a-f]{12}, and"):
        train(tmp_path, max_epochs=3, resume=True, datalist=datalist, options=options)


def test_a_resumed_training_keeps_what_its_card_says_of_the_weights_that_it_began_from(tmp_path: Path) -> None:
    for name in ("first", "other"):
        torch.save(nn.Linear(4, 1).state_dict(), tmp_path / f"{name}.pt")
        write_card(tmp_path / f"{name}.pt", {"warning": f"Not for {name}."})
    run = tmp_path / "run"
    train(run, max_epochs=1, n_validation=0, initial_weights=[tmp_path / "first.pt", None])
    for number, starts in ((2, []), (3, [tmp_path / "other.pt"])):
        (run / "model.json").unlink()
        train(run, max_epochs=number, resume=True, n_validation=0, initial_weights=starts)
        card = read_card(run / "model.pt")
        assert [start["name"] for start in card["initial_weights"]] == ["first.pt"]
        assert card["warning"].endswith("says: Not for first.")


def test_a_checkpoint_that_is_none_or_has_other_parts_is_one_sentence(tmp_path: Path) -> None:
    train(tmp_path, max_epochs=1)
    path = tmp_path / "resume.ckpt"
    content = torch.load(path, weights_only=True)
    for changed, message in (
        ({**content, "path_length": 1}, "has the part 'path_length'"),
        ({name: part for name, part in content.items() if name != "optimizer"}, "lacks the part 'optimizer'"),
        (content["network"], "no checkpoint of a training"),
    ):
        torch.save(changed, path)
        with pytest.raises(ValueError, match=rf"resume\.ckpt: {message}"):
            train(tmp_path, max_epochs=2, resume=True)
    raw = bytearray(path.read_bytes())
    raw[40:120] = bytes(80)  # with its end in place
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"resume\.ckpt: cannot be read"):
        train(tmp_path, max_epochs=2, resume=True)


@pytest.mark.parametrize("torn", ["resume.ckpt", "model.pt"])
def test_a_training_whose_files_are_torn_sets_them_aside_and_begins_again(
    tmp_path: Path, torn: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(tmp_path, max_epochs=2)
    path = tmp_path / torn
    for size in (300, 0):
        path.write_bytes(path.read_bytes()[:size])
        assert epochs_done(tmp_path) == 0
        assert (tmp_path / f"{torn}.torn").stat().st_size == size
        assert f"{torn}: is torn, as by a kill or a full disk, so that it is kept as {torn}.torn" in caplog.text
        train(tmp_path, max_epochs=1)
    path.write_bytes(path.read_bytes()[:300])
    again = train(tmp_path, max_epochs=2, resume=True)
    assert again["best"] == whole["best"]
    assert all(torch.equal(weight, again["network"][name]) for name, weight in whole["network"].items())
    assert epochs_done(tmp_path) == 2


def test_a_checkpoint_that_the_disk_does_not_take_is_one_sentence_and_the_older_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, max_epochs=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(content: object, stream: IO[bytes]) -> None:
        stream.write(b"half of it")
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 704 vs 598")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match=r"model\.pt: cannot be written whole, as on a full disk"):
        train(tmp_path, max_epochs=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_loader_names_its_file_and_loads_it_once_for_all_its_engines(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    trained, network = nn.Linear(2, 1), nn.Linear(2, 1)
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    loader = WeightsLoader(tmp_path / "model.pt", network)
    for _ in range(2):
        engine = Engine(lambda engine, batch: network(batch))
        loader.attach(engine)
        engine.run([torch.ones(1, 2)])
        assert torch.equal(engine.state.output, trained(torch.ones(1, 2)))
    digits = hashlib.sha256((tmp_path / "model.pt").read_bytes()).hexdigest()[:12]
    assert capsys.readouterr().out == f"weights: {tmp_path / 'model.pt'}, sha256 {digits}, without a card\n"


def test_a_loader_without_a_file_leaves_the_network_and_a_misfit_is_one_sentence(tmp_path: Path) -> None:
    network = nn.Linear(2, 1)
    before = copy.deepcopy(network.state_dict())
    WeightsLoader(None, network).load()
    assert torch.equal(network.weight, before["weight"])
    torch.save(nn.Linear(3, 1).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt: 1 of 2 weights do not fit the network, the first is weight"):
        WeightsLoader(tmp_path / "model.pt", network).load()
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such file"):
        WeightsLoader(tmp_path / "none.pt", network).load()


@pytest.mark.parametrize("val_interval", [2, 5])
def test_the_last_epoch_is_validated_once_whatever_the_interval(tmp_path: Path, val_interval: int) -> None:
    ended = train(tmp_path, max_epochs=3, val_interval=val_interval)
    assert ended["best"][1] in ({2, 3} if val_interval == 2 else {3})
    assert (tmp_path / "model.pt").is_file()


def test_a_fresh_training_names_the_files_that_it_replaces(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "model.pt").write_bytes(b"older")
    train(tmp_path, max_epochs=1, val_interval=5)
    assert f"model.pt in {tmp_path} of another training, in whose place the first checkpoint" in caplog.text
    assert (tmp_path / "model.pt").read_bytes() != b"older"


def test_without_validation_images_the_last_epoch_is_kept_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    ended = train(tmp_path, max_epochs=2, n_validation=0)
    assert capsys.readouterr().out == "no validation images: the last epoch's weights are kept\n"
    model = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(model[name], value) for name, value in ended["network"].items())
    with pytest.raises(ValueError, match=r"resume\.ckpt: lacks the part 'best'"):
        train(tmp_path, max_epochs=3, resume=True)
