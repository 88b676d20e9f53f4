import pytest
import torch
from monai.metrics import DiceMetric

from clinbundles.engines.metrics.soft_dice import SoftDiceMetric


def image(*pixels: float) -> torch.Tensor:
    return torch.tensor(pixels).reshape(1, 1, 2, 2)


# probability, label, (2 sum(py) + 1) / (sum(p) + sum(y) + 1) counted by hand
CASES = {
    "certain and right": (image(1, 1, 0, 0), image(1, 1, 0, 0), 5 / 5),
    "hesitant but on the right side": (image(0.75, 0.75, 0.25, 0.25), image(1, 1, 0, 0), 4 / 5),
    "no idea": (image(0.5, 0.5, 0.5, 0.5), image(1, 1, 0, 0), 3 / 5),
    "certain and wrong": (image(0, 0, 1, 1), image(1, 1, 0, 0), 1 / 5),
    "nothing predicted": (image(0, 0, 0, 0), image(1, 1, 1, 0), 1 / 4),
    "nothing there, nothing predicted": (image(0, 0, 0, 0), image(0, 0, 0, 0), 1.0),
    "nothing there, something predicted": (image(1, 1, 1, 0), image(0, 0, 0, 0), 1 / 4),
}


def score(*pairs: tuple[torch.Tensor, torch.Tensor], smooth: float = 1.0) -> float:
    metric = SoftDiceMetric(smooth)
    for probability, label in pairs:
        metric(probability, label)
    return metric.aggregate().item()


@pytest.mark.parametrize("case", CASES)
def test_one_image_scores_as_counted_by_hand(case: str) -> None:
    probability, label, expected = CASES[case]
    assert score((probability, label)) == pytest.approx(expected)


def test_images_are_averaged_whether_they_come_in_one_batch_or_several_or_as_a_list() -> None:
    pairs = [case[:2] for case in CASES.values()]
    together = tuple(torch.cat(items) for items in zip(*pairs, strict=True))
    decollated = SoftDiceMetric()
    decollated(list(together[0]), list(together[1]))
    expected = sum(case[2] for case in CASES.values()) / len(CASES)
    assert score(*pairs) == pytest.approx(expected)
    assert score(together) == pytest.approx(expected)
    assert decollated.aggregate().item() == pytest.approx(expected)


def test_on_a_mask_it_is_the_hard_dice_as_soon_as_the_smoothing_vanishes() -> None:
    generator = torch.Generator().manual_seed(0)
    mask, label = (torch.randint(0, 2, (4, 1, 16, 16), generator=generator).float() for _ in range(2))
    hard = DiceMetric()
    hard(mask, label)
    assert score((mask, label), smooth=1e-6) == pytest.approx(hard.aggregate().item(), rel=1e-6)


def test_a_half_precision_volume_of_many_voxels_is_counted_exactly() -> None:
    ones = torch.ones(1, 1, 64, 64, 64)  # half precision ends at 65 504
    assert score((ones.half(), ones.bool())) == 1.0


def test_bad_input_is_named() -> None:
    metric = SoftDiceMetric()
    with pytest.raises(ValueError, match=r"prediction has shape \(1, 1, 2, 2\), label \(1, 1, 4, 1\)"):
        metric(image(0, 0, 0, 0), image(0, 0, 0, 0).reshape(1, 1, 4, 1))
    for bad in (image(-3, 2, 0, 0), image(float("nan"), 0, 0, 0)):
        with pytest.raises(ValueError, match="takes probabilities"):
            metric(bad, image(0, 0, 0, 0))
    with pytest.raises(ValueError, match="label holds values other than 0 and 1"):
        metric(image(0, 0, 0, 0), image(0, 0, 0, 255))
    with pytest.raises(ValueError, match="smooth is 0"):
        SoftDiceMetric(0)
