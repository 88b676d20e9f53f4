"""Two trainings, one network."""

from pathlib import Path

import pytest
import torch

from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageSegmenter
from clinbundles.nets.weights import load_stages

NARROW = (4, 8, 8, 8, 8)


def saved(path: Path) -> StridedUNet:
    network = StridedUNet(channels=NARROW)
    torch.save(network.state_dict(), path)
    return network


def test_each_stage_gets_its_own_file(tmp_path: Path) -> None:
    low, high = saved(tmp_path / "low.pt"), saved(tmp_path / "high.pt")
    network = TwoStageSegmenter(StridedUNet(channels=NARROW), StridedUNet(channels=NARROW))
    load_stages(network, coarse_weights=tmp_path / "low.pt", initial_weights=tmp_path / "high.pt")
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(network.low_net(image), low(image))
    torch.testing.assert_close(network.high_net(image), high(image))


def test_a_conditioned_stage_2_starts_blind_to_stage_1(tmp_path: Path) -> None:
    high = saved(tmp_path / "high.pt")
    network = TwoStageSegmenter(StridedUNet(channels=NARROW), StridedUNet(4, channels=NARROW), conditioned=True)
    load_stages(network, coarse_weights=None, initial_weights=tmp_path / "high.pt")
    image = torch.rand(1, 3, 32, 32)
    for stage_1 in (torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)):
        torch.testing.assert_close(network.high_net(torch.cat([image, stage_1], 1)), high(image))


def test_missing_and_unfit_weights_are_named(tmp_path: Path) -> None:
    network = TwoStageSegmenter(StridedUNet(channels=NARROW), StridedUNet(channels=NARROW))
    with pytest.raises(FileNotFoundError, match=r"none\.pt.*low_net"):
        load_stages(network, coarse_weights=tmp_path / "none.pt", initial_weights=None)
    saved(tmp_path / "low.pt")
    wider = TwoStageSegmenter(StridedUNet(channels=(8, 8, 8, 8, 8)), StridedUNet(channels=NARROW))
    with pytest.raises(ValueError, match=r"low\.pt.*weights do not fit low_net"):
        load_stages(wider, coarse_weights=tmp_path / "low.pt", initial_weights=None)
