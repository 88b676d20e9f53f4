import pytest
import torch
from monai.metrics import DiceMetric, MeanIoU

from clinbundles.engines.metrics.segmentation import PixelRatioMetric, SoftDiceMetric


def image(*pixels: float) -> torch.Tensor:
    return torch.tensor(pixels, dtype=torch.float32).reshape(1, 1, 2, 2)


# prediction, label, dice, iou, precision, recall: counted by hand from TP, FP and FN
CASES = {
    "three found, two right, one missed": (image(1, 1, 1, 0), image(1, 1, 0, 1), 4 / 6, 2 / 4, 2 / 3, 2 / 3),
    "all found, one too many": (image(1, 1, 0, 0), image(1, 0, 0, 0), 2 / 3, 1 / 2, 1 / 2, 1.0),
    "nothing in common": (image(1, 1, 0, 0), image(0, 0, 1, 1), 0.0, 0.0, 0.0, 0.0),
    "nothing predicted": (image(0, 0, 0, 0), image(1, 0, 0, 0), 0.0, 0.0, 0.0, 0.0),
    "nothing there, something predicted": (image(1, 0, 0, 0), image(0, 0, 0, 0), 0.0, 0.0, 0.0, 0.0),
    "nothing there, nothing predicted": (image(0, 0, 0, 0), image(0, 0, 0, 0), 1.0, 1.0, 1.0, 1.0),
}


def four_metrics() -> list:
    return [
        DiceMetric(ignore_empty=False),
        MeanIoU(ignore_empty=False),
        PixelRatioMetric("precision"),
        PixelRatioMetric("recall"),
    ]


@pytest.mark.parametrize("case", CASES)
def test_one_image_scores_as_counted_by_hand(case: str) -> None:
    prediction, label, *expected = CASES[case]
    for metric, value in zip(four_metrics(), expected, strict=True):
        metric(prediction, label)
        assert metric.aggregate().item() == pytest.approx(value), metric


def test_images_are_averaged_and_pixels_never_pooled() -> None:
    cases = list(CASES.values())
    prediction, label = (torch.cat([case[i] for case in cases]) for i in (0, 1))
    for i, metric in enumerate(four_metrics()):
        metric(prediction, label)
        assert metric.aggregate().item() == pytest.approx(sum(case[2 + i] for case in cases) / len(cases))


def test_batches_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, label = (torch.randint(0, 2, (5, 1, 4, 4), generator=generator).float() for _ in range(2))
    whole, parts = PixelRatioMetric("precision"), PixelRatioMetric("precision")
    whole(prediction, label)
    for i in range(5):
        parts(prediction[i : i + 1], label[i : i + 1])
    assert torch.equal(whole.aggregate(), parts.aggregate())


def test_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="prediction holds values other than 0 and 1"):
        PixelRatioMetric("recall")(image(1, 0, 0, 0) * 0.7, image(1, 0, 0, 0))


def test_an_unknown_ratio_is_named() -> None:
    with pytest.raises(ValueError, match="'specificity'"):
        PixelRatioMetric("specificity")  # type: ignore[arg-type]


# probability, label, (2 sum(py) + 1) / (sum(p) + sum(y) + 1) counted by hand
SOFT_CASES = {
    "certain and right": (image(1, 1, 0, 0), image(1, 1, 0, 0), 5 / 5),
    "hesitant but on the right side": (image(0.75, 0.75, 0.25, 0.25), image(1, 1, 0, 0), 4 / 5),
    "no idea": (image(0.5, 0.5, 0.5, 0.5), image(1, 1, 0, 0), 3 / 5),
    "certain and wrong": (image(0, 0, 1, 1), image(1, 1, 0, 0), 1 / 5),
    "nothing predicted": (image(0, 0, 0, 0), image(1, 1, 1, 0), 1 / 4),
    "nothing there, nothing predicted": (image(0, 0, 0, 0), image(0, 0, 0, 0), 1.0),
    "nothing there, something predicted": (image(1, 1, 1, 0), image(0, 0, 0, 0), 1 / 4),
}


def soft_dice(*pairs: tuple[torch.Tensor, torch.Tensor], smooth: float = 1.0) -> float:
    metric = SoftDiceMetric(smooth)
    for probability, label in pairs:
        metric(probability, label)
    return metric.aggregate().item()


@pytest.mark.parametrize("case", SOFT_CASES)
def test_the_soft_dice_of_one_image_is_as_counted_by_hand(case: str) -> None:
    probability, label, expected = SOFT_CASES[case]
    assert soft_dice((probability, label)) == pytest.approx(expected)


def test_soft_dice_stays_that_of_published_results() -> None:
    generator = torch.Generator().manual_seed(0)
    probability, label = torch.rand(3, 1, 32, 32, generator=generator), torch.rand(3, 1, 32, 32, generator=generator)
    metric = SoftDiceMetric()
    values = metric(probability, (label > 0.7).float())
    assert values.flatten().tolist() == pytest.approx(
        [0.36199769377708435, 0.3674304783344269, 0.3777000904083252], abs=1e-7
    )
    assert metric.aggregate().item() == pytest.approx(0.3690427541732788, abs=1e-7)


def test_soft_dice_is_averaged_over_images_whether_they_come_in_one_batch_or_several_or_as_a_list() -> None:
    pairs = [case[:2] for case in SOFT_CASES.values()]
    together = tuple(torch.cat(items) for items in zip(*pairs, strict=True))
    decollated = SoftDiceMetric()
    decollated(list(together[0]), list(together[1]))
    expected = sum(case[2] for case in SOFT_CASES.values()) / len(SOFT_CASES)
    assert soft_dice(*pairs) == pytest.approx(expected)
    assert soft_dice(together) == pytest.approx(expected)
    assert decollated.aggregate().item() == pytest.approx(expected)


def test_on_a_mask_soft_dice_is_the_hard_dice_as_soon_as_the_smoothing_vanishes() -> None:
    generator = torch.Generator().manual_seed(0)
    mask, label = (torch.randint(0, 2, (4, 1, 16, 16), generator=generator).float() for _ in range(2))
    hard = DiceMetric()
    hard(mask, label)
    assert soft_dice((mask, label), smooth=1e-6) == pytest.approx(hard.aggregate().item(), rel=1e-6)


def test_a_half_precision_volume_of_many_voxels_is_counted_exactly() -> None:
    ones = torch.ones(1, 1, 64, 64, 64)  # half precision ends at 65 504
    assert soft_dice((ones.half(), ones.bool())) == 1.0


def test_bad_input_to_soft_dice_is_named() -> None:
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
