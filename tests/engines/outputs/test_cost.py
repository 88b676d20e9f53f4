import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose
from torch import nn

from clinbundles.engines.outputs.cost import InferenceCost, peak_memory, read_cost, time_files

MACS_OF_A_PIXEL = 3 * 3 * 3 * 2


class SlowConvolution(nn.Module):
    """Takes `seconds` for the n-th call and at least `held` bytes of memory; its work depends on the first pixel."""

    def __init__(self, seconds: list[float] | None = None, n_bytes: int = 0) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 3, padding=1)
        self.seconds = seconds or []
        self.n_bytes = n_bytes

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.n_bytes:
            torch.ones(self.n_bytes // 4)
        # A forward that counts runs under a dispatch mode or the profiler, and must not use up the waiting times.
        counts = torch.utils._python_dispatch.is_in_torch_dispatch_mode() or torch.autograd._profiler_enabled()
        if self.seconds and not counts:
            time.sleep(self.seconds.pop(0))
        for _ in range(int(image[0, 0, 0, 0])):
            self.convolution(image)
        return self.convolution(image)


def evaluate(network: nn.Module, output_dir: Path, first_pixels: list[int], **options) -> dict:
    measured = options.pop("measured", network)
    batch_size = options.pop("batch_size", 1)
    inferer = options.pop("inferer", None)
    images = [torch.zeros(3, 8, 8) for _ in first_pixels]
    for image, value in zip(images, first_pixels, strict=True):
        image[0, 0, 0] = value
    loader = DataLoader(Dataset([{"image": image} for image in images]), batch_size=batch_size)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=loader, network=network, inferer=inferer
    )
    InferenceCost(output_dir, measured, **options).attach(evaluator)
    evaluator.run()
    return json.loads((output_dir / "cost.json").read_text())


def test_an_image_costs_the_convolutions_that_it_goes_through(tmp_path: Path) -> None:
    cost = evaluate(SlowConvolution(), tmp_path / "new", [0] * 5, batch_size=2)
    assert cost["macs_per_image"] == MACS_OF_A_PIXEL * 8 * 8
    assert (cost["images"], cost["batch_size"], cost["image_shape"]) == (5, 2, [3, 8, 8])
    assert (cost["device"], cost["threads"]) == ("cpu", torch.get_num_threads())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cost.json"]


def test_work_that_depends_on_the_image_is_counted_as_often_as_asked(tmp_path: Path) -> None:
    once = MACS_OF_A_PIXEL * 8 * 8
    for count_every, forwards in ((0, 1), (1, (1 + 2 + 3 + 4) / 4), (2, (1 + 3) / 2)):
        cost = evaluate(SlowConvolution(), tmp_path, [0, 1, 2, 3], count_every=count_every)
        assert cost["macs_per_image"] == once * forwards


def test_the_time_is_the_median_over_the_batches_without_the_first(tmp_path: Path) -> None:
    cost = evaluate(SlowConvolution(seconds=[0.5, 0.04, 0.04, 0.3]), tmp_path, [0] * 8, batch_size=2)
    assert 0.02 <= cost["seconds_per_image"] < 0.1


def test_the_calls_that_windows_need_add_up(tmp_path: Path) -> None:
    network = SlowConvolution(seconds=[0.03] * 12)
    cost = evaluate(network, tmp_path, [0] * 3, inferer=SlidingWindowInferer(4, sw_batch_size=1, overlap=0))
    assert cost["seconds_per_image"] >= 4 * 0.03
    assert cost["macs_per_image"] == MACS_OF_A_PIXEL * 8 * 8


def test_the_peak_is_what_a_forward_holds_and_not_what_was_held_before(tmp_path: Path) -> None:
    before = torch.ones(64 * 2**20)  # 256 MiB that the peak must have forgotten
    del before
    small = evaluate(SlowConvolution(), tmp_path, [0] * 3)["peak_memory_bytes"]
    large = evaluate(SlowConvolution(n_bytes=128 * 2**20), tmp_path, [0] * 3)["peak_memory_bytes"]
    assert small < 2**20
    assert 128 * 2**20 <= large < 129 * 2**20


def test_what_is_freed_in_between_is_not_added_up() -> None:
    def one_after_the_other() -> None:
        for _ in range(3):
            torch.zeros(2**20)

    def all_at_once() -> None:
        assert len([torch.zeros(2**20) for _ in range(3)]) == 3

    assert peak_memory(one_after_the_other, torch.device("cpu")) == 4 * 2**20
    assert peak_memory(all_at_once, torch.device("cpu")) == 12 * 2**20
    assert peak_memory(lambda: None, torch.device("cpu")) == 0


def test_the_network_is_watched_only_during_the_epoch_and_every_epoch_starts_anew(tmp_path: Path) -> None:
    network = SlowConvolution()
    loader = DataLoader(Dataset([{"image": torch.zeros(3, 8, 8)}] * 2), batch_size=1)
    evaluator = SupervisedEvaluator(device=torch.device("cpu"), val_data_loader=loader, network=network)
    InferenceCost(tmp_path, network).attach(evaluator)
    for epoch in (1, 2):
        evaluator.run(global_epoch=epoch)
        assert not network._forward_hooks
        assert not network._forward_pre_hooks
        assert json.loads((tmp_path / "cost.json").read_text())["images"] == 2
    assert network(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 4, 4)


def test_a_network_that_is_never_called_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not call the network"):
        evaluate(SlowConvolution(), tmp_path, [0], measured=nn.Conv2d(3, 2, 1))
    with pytest.raises(ValueError, match="count_every is -1"):
        InferenceCost(tmp_path, nn.Identity(), count_every=-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_waited_for_and_its_own_memory_measured(tmp_path: Path) -> None:
    network = nn.Conv2d(3, 64, 3, padding=1).cuda()
    loader = DataLoader(Dataset([{"image": torch.zeros(3, 512, 512)}] * 3), batch_size=1)
    evaluator = SupervisedEvaluator(device=torch.device("cuda"), val_data_loader=loader, network=network)
    InferenceCost(tmp_path, network).attach(evaluator)
    evaluator.run()
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert cost["device"] == torch.cuda.get_device_name()
    assert cost["peak_memory_bytes"] >= 64 * 512 * 512 * 4


class Sleeper(nn.Module):
    """One weight; takes `seconds` a call and notes what it was given."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.seconds = seconds
        self.inputs: list[tuple] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        self.inputs.append((type(image), tuple(image.shape), self.training, torch.is_grad_enabled()))
        return image.mean((2, 3)) * self.scale


class Loader:
    """Takes the item's own seconds; the file named "broken" cannot be read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, item: dict) -> dict:
        if item["image"] == "broken":
            raise ValueError("broken: not a readable image file.")
        self.read.append(item["image"])
        time.sleep(item.get("seconds", 0))
        return {**item, "image": MetaTensor(torch.zeros(3, 8, 6))}


def files(*names: str, seconds: float = 0.0) -> list[dict]:
    return [{"image": name, "seconds": seconds} for name in names]


def test_the_parts_add_up_to_a_file(tmp_path: Path) -> None:
    items, network = files(*"abcdef", seconds=0.02), Sleeper(0.03)
    cost = time_files(items, Loader(), network, output_dir=tmp_path / "new", device="cpu", warm_up=1)
    assert cost.preprocessing_seconds >= 0.02
    assert cost.seconds_per_image >= 0.03
    assert cost.seconds_per_file >= 0.05
    assert cost.seconds_per_file_p5 <= cost.seconds_per_file <= cost.seconds_per_file_p95
    assert (cost.images, cost.image_shape, cost.parameters) == (6, (3, 8, 6), 3)
    assert (cost.device, cost.threads) == ("cpu", torch.get_num_threads())
    assert json.loads((tmp_path / "new" / "cost.json").read_text()) == asdict(cost) | {"image_shape": [3, 8, 6]}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cost.json"]


def test_one_slow_file_moves_the_upper_percentile_and_not_the_median(tmp_path: Path) -> None:
    items = files(*"abcde")
    items[2]["seconds"] = 0.4
    cost = time_files(items, Loader(), Sleeper(), output_dir=tmp_path, device="cpu", warm_up=0)
    assert cost.seconds_per_file < 0.1
    assert cost.seconds_per_file_p95 > 0.2
    assert cost.seconds_per_file_mean > 0.08


def test_the_first_files_warm_up_and_as_many_are_timed_as_asked(tmp_path: Path) -> None:
    loader = Loader()
    cost = time_files(files(*"abcdef"), loader, Sleeper(), output_dir=tmp_path, device="cpu", n_files=4, warm_up=2)
    assert "".join(loader.read) == "ab" + "abcd"
    assert cost.images == 4


def test_the_network_sees_single_plain_images_in_eval_mode_without_gradients_and_keeps_its_mode(tmp_path: Path) -> None:
    network = Sleeper()
    time_files(files("a"), Compose(Loader()), network, output_dir=tmp_path, device="cpu")
    assert set(network.inputs) == {(torch.Tensor, (1, 3, 8, 6), False, False)}
    assert network.training


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    items = files("broken", "a", "broken", "b")
    cost = time_files(items, Compose(Loader()), Sleeper(), output_dir=tmp_path, device="cpu")
    assert cost.images == 2
    with pytest.raises(ValueError, match="none of the 1 files can be read"):
        time_files(files("broken"), Compose(Loader()), Sleeper(), output_dir=tmp_path, device="cpu")


def test_an_error_of_another_kind_and_impossible_numbers_are_not_passed_over(tmp_path: Path) -> None:
    def fail(item: dict) -> dict:
        raise KeyError("programming")

    with pytest.raises(KeyError):
        time_files(files("a"), fail, Sleeper(), output_dir=tmp_path, device="cpu")
    for numbers in ({"n_files": 0}, {"warm_up": -1}):
        with pytest.raises(ValueError, match="expected 1 or more and 0 or more"):
            time_files(files("a"), Loader(), Sleeper(), output_dir=tmp_path, device="cpu", **numbers)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_waited_for_at_every_file(tmp_path: Path) -> None:
    cost = time_files(files("a", "b"), Loader(), Sleeper().cuda(), output_dir=tmp_path, device="cuda")
    assert cost.device == torch.cuda.get_device_name()


def test_files_are_counted_as_images_of_an_evaluator_are(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Flatten())
    cost = time_files(files("a", "b"), Loader(), network, output_dir=tmp_path / "files", device="cpu")
    assert cost.macs_per_image == MACS_OF_A_PIXEL * 8 * 6
    assert cost.peak_memory_bytes >= 2 * 8 * 6 * 4
    evaluated = evaluate(SlowConvolution(), tmp_path / "images", [0] * 3)
    assert list(evaluated) == list(json.loads((tmp_path / "files" / "cost.json").read_text()))
    assert evaluated["parameters"] == cost.parameters == 3 * 3 * 3 * 2 + 2
    assert evaluated["seconds_per_file"] is None


def test_a_number_is_read_by_its_name(tmp_path: Path) -> None:
    evaluate(SlowConvolution(), tmp_path, [0])
    assert read_cost(tmp_path / "cost.json", "macs_per_image") == MACS_OF_A_PIXEL * 8 * 8
    assert read_cost(tmp_path / "cost.json", "seconds_per_file") is None
    with pytest.raises(ValueError, match=r"cost\.json: has no gmacs, only macs_per_image"):
        read_cost(tmp_path / "cost.json", "gmacs")
