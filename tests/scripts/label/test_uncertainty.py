"""How unsure networks are of images, by the way of each method."""

from types import SimpleNamespace

import pytest
import torch

from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageSegmenter
from clinbundles.scripts.label.uncertainty import committee_uncertainty, uncertainty_of

IMAGE = torch.zeros(1, 3, 64, 64)


@pytest.mark.parametrize("n_classes", [1, 3])
def test_pixels_that_could_be_anything_are_1_and_sure_ones_0(n_classes: int) -> None:
    sure = torch.full((1, n_classes, 8, 8), -50.0)
    sure[:, 0] = 50
    assert uncertainty_of(SimpleNamespace(), IMAGE, torch.zeros(1, n_classes, 8, 8)) == pytest.approx(1)
    assert uncertainty_of(SimpleNamespace(), IMAGE, sure) == pytest.approx(0, abs=1e-6)


def test_classes_that_are_as_likely_are_1() -> None:
    assert uncertainty_of(SimpleNamespace(), IMAGE, torch.zeros(1, 3)) == pytest.approx(1)


def test_cells_are_as_unsure_as_their_scores_and_none_is_sure() -> None:
    network = SimpleNamespace(detections=[{"scores": torch.tensor([0.5, 1.0])}])
    assert uncertainty_of(network, IMAGE, torch.zeros(1, 1, 8, 8)) == pytest.approx(0.5)
    network.detections = [{"scores": torch.zeros(0)}]
    assert uncertainty_of(network, IMAGE, torch.zeros(1, 1, 8, 8)) == 0


@pytest.mark.parametrize(("n_select", "side"), [(1, 128), (16, 128), (2, 120)])
def test_two_stages_are_as_unsure_as_the_windows_that_are_refined(n_select: int, side: int) -> None:
    torch.manual_seed(0)
    low, high = StridedUNet(3, channels=[4, 8]), StridedUNet(4, channels=[4, 8])
    options = {"scale": 2, "n_patches": 4, "divisor": 8, "score": "entropy", "conditioned": True}
    network = TwoStageSegmenter(low, high, n_select=n_select, **options).eval()
    chosen: list[torch.Tensor] = []
    image = torch.rand(1, 3, 128, side)
    patch, stride, _ = network.windows(image)
    with torch.no_grad():
        padded = network._pad(image, patch)
        numbers = network.choose(padded, network.stage_1(padded), patch, stride)
        first = network.stage_1(padded)
    entropy = -(torch.xlogy(first, first) + torch.xlogy(1 - first, 1 - first)) / torch.log(torch.tensor(2.0))
    for number in numbers.tolist():
        row, column = (int(number) // 4) * stride[0], (int(number) % 4) * stride[1]
        chosen.append(entropy[0, 0, row : row + patch[0], column : column + patch[1]].mean())
    assert uncertainty_of(network, image, torch.zeros(1)) == pytest.approx(float(torch.stack(chosen).mean()), rel=1e-4)


def test_a_committee_that_agrees_is_sure_and_one_that_is_at_odds_is_log_2() -> None:
    one = torch.zeros(1, 2, 4, 4, 1)
    one[:, 0] = 1
    assert committee_uncertainty([one, one]) == 0
    assert committee_uncertainty([one, one.flip(1)]) == pytest.approx(torch.log(torch.tensor(2.0)).item())
