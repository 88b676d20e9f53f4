import json
import time
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import nn

from clinbundles.engines.outputs.file_timing import time_files


class Sleeper(nn.Module):
    """One weight; takes `seconds` a call and notes what it was given."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.seconds = seconds
        self.seen: list[tuple] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        self.seen.append((type(image), tuple(image.shape), self.training, torch.is_grad_enabled()))
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
    assert cost["preprocessing_seconds"] >= 0.02
    assert cost["network_seconds"] >= 0.03
    assert cost["seconds_per_file"] >= 0.05
    assert cost["seconds_per_file_p5"] <= cost["seconds_per_file"] <= cost["seconds_per_file_p95"]
    assert (cost["n_files"], cost["image_shape"], cost["parameters"]) == (6, [3, 8, 6], 3)
    assert (cost["device"], cost["threads"]) == ("cpu", torch.get_num_threads())
    assert json.loads((tmp_path / "new" / "cost.json").read_text()) == cost
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cost.json"]


def test_one_slow_file_moves_the_upper_percentile_and_not_the_median(tmp_path: Path) -> None:
    items = files(*"abcde")
    items[2]["seconds"] = 0.4
    cost = time_files(items, Loader(), Sleeper(), output_dir=tmp_path, device="cpu", warm_up=0)
    assert cost["seconds_per_file"] < 0.1
    assert cost["seconds_per_file_p95"] > 0.2
    assert cost["seconds_per_file_mean"] > 0.08


def test_the_first_files_warm_up_and_as_many_are_timed_as_asked(tmp_path: Path) -> None:
    loader = Loader()
    cost = time_files(files(*"abcdef"), loader, Sleeper(), output_dir=tmp_path, device="cpu", n_files=4, warm_up=2)
    assert "".join(loader.read) == "ab" + "abcd"
    assert cost["n_files"] == 4


def test_the_network_sees_single_plain_images_in_eval_mode_without_gradients_and_keeps_its_mode(tmp_path: Path) -> None:
    network = Sleeper()
    time_files(files("a"), Compose(Loader()), network, output_dir=tmp_path, device="cpu")
    assert set(network.seen) == {(torch.Tensor, (1, 3, 8, 6), False, False)}
    assert network.training


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    items = files("broken", "a", "broken", "b")
    cost = time_files(items, Compose(Loader()), Sleeper(), output_dir=tmp_path, device="cpu")
    assert cost["n_files"] == 2
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
def test_a_gpu_is_waited_for(tmp_path: Path) -> None:
    cost = time_files(files("a", "b"), Loader(), Sleeper().cuda(), output_dir=tmp_path, device="cuda")
    assert cost["device"] == torch.cuda.get_device_name()
