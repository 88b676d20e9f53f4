"""Scores of windows, and cutting and pasting without a loop, against the same done by hand."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from clinbundles.nets.uncertain_windows import (
    SCORES,
    add_windows,
    gather_windows,
    paste_windows,
    pixel_uncertainty,
    shrink,
    window_means,
    window_places,
    window_uncertainty,
    window_weights,
)


def places_of(image: int, *places: int) -> list[torch.Tensor]:
    return [torch.tensor([p]) for p in (image, *places)]


def halves_and_grey() -> torch.Tensor:
    """Four windows of 4 x 4: empty, full, left half empty and right half full, and 0.4 throughout."""
    stage_1 = torch.zeros(1, 1, 8, 8)
    stage_1[..., :4, 4:] = 1
    stage_1[..., 4:, 2:4] = 1
    stage_1[..., 4:, 4:] = 0.4
    return stage_1


def test_the_papers_mean_takes_a_window_of_two_confident_halves_for_the_most_uncertain() -> None:
    uncertainty = window_uncertainty(halves_and_grey(), "mean", [4, 4], [4, 4])
    torch.testing.assert_close(uncertainty, torch.tensor([[0.0, 0.0, 0.5, 0.4]]))


@pytest.mark.parametrize("score", ["entropy", "margin", "distance"])
def test_the_other_scores_find_the_window_whose_pixels_are_uncertain(score: str) -> None:
    uncertainty = window_uncertainty(halves_and_grey(), score, [4, 4], [4, 4])[0]
    assert uncertainty.argmax() == 3
    torch.testing.assert_close(uncertainty[:3], torch.zeros(3))


def test_the_boundary_score_counts_the_outline() -> None:
    # An edge belongs to the pixel before it: 4 pixels of the bottom left window, and where windows meet.
    uncertainty = window_uncertainty(halves_and_grey(), "boundary", [4, 4], [4, 4])[0] * 16
    torch.testing.assert_close(uncertainty, torch.tensor([4 + 2.0, 4 * 0.6, 4 + 4 * 0.6, 0.0]))


@pytest.mark.parametrize("score", SCORES[1:])
def test_binary_sigmoid_and_two_class_softmax_are_scored_alike(score: str) -> None:
    torch.manual_seed(0)
    foreground = torch.rand(2, 1, 8, 8)
    both = torch.cat([1 - foreground, foreground], 1)
    torch.testing.assert_close(pixel_uncertainty(foreground, score), pixel_uncertainty(both, score))


def test_certain_pixels_have_no_uncertainty_and_no_nan() -> None:
    certain = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(1, 1, 4, 2).contiguous()
    for score in ("entropy", "margin", "distance"):
        assert pixel_uncertainty(certain, score).abs().max() == 0
    assert pixel_uncertainty(torch.full((1, 1, 2, 2), 0.5), "entropy").min() == pytest.approx(1)


@pytest.mark.parametrize(
    ("size", "patch", "stride"),
    [((12, 8), [4, 4], [4, 4]), ((12, 8), [4, 4], [2, 2]), ((8, 8, 4), [4, 4, 2], [4, 2, 1])],
)
def test_numbers_places_means_and_windows_agree_with_a_loop(
    size: tuple[int, ...], patch: list[int], stride: list[int]
) -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, *size)
    starts = [range(0, side - p + 1, s) for side, p, s in zip(size, patch, stride, strict=True)]
    counts = [len(r) for r in starts]
    by_hand = [
        image[(b, slice(None), *(slice(c, c + p) for c, p in zip(corner, patch, strict=True)))]
        for b in range(2)
        for corner in itertools.product(*starts)
    ]
    numbers = torch.arange(len(by_hand))
    torch.testing.assert_close(gather_windows(image, numbers, patch, stride), torch.stack(by_hand))
    first, *corner = (int(place[5]) for place in window_places(numbers, counts))
    area = (slice(c * s, c * s + p) for c, s, p in zip(corner, stride, patch, strict=True))
    torch.testing.assert_close(image[(first, slice(None), *area)], by_hand[5])
    means = window_means(image[:, :1], patch, stride).flatten()
    torch.testing.assert_close(means, torch.stack([w[0].mean() for w in by_hand]))


@pytest.mark.parametrize(("size", "patch"), [((12, 8), [4, 4]), ((8, 8, 4), [4, 2, 2])])
def test_pasting_what_was_cut_out_changes_nothing_and_other_windows_stay(
    size: tuple[int, ...], patch: list[int]
) -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, *size)
    numbers = torch.tensor([0, 5, 7])
    windows = gather_windows(image, numbers, patch, patch)
    target = image.clone()
    paste_windows(target, windows, numbers, patch)
    torch.testing.assert_close(target, image)
    paste_windows(target, windows + 1, numbers, patch)
    changed = (target != image).float().sum()
    assert changed == windows.numel()
    torch.testing.assert_close(gather_windows(target, numbers, patch, patch), windows + 1)


@pytest.mark.parametrize(("size", "patch", "stride"), [((12, 8), [4, 4], [2, 2]), ((8, 8, 4), [4, 4, 2], [2, 2, 1])])
def test_adding_overlapping_windows_equals_a_loop(size: tuple[int, ...], patch: list[int], stride: list[int]) -> None:
    torch.manual_seed(0)
    counts = [(side - p) // s + 1 for side, p, s in zip(size, patch, stride, strict=True)]
    numbers = torch.tensor([0, 1, 2, 4])
    places = window_places(numbers, counts)
    windows = torch.rand(4, 2, *patch)
    target, by_hand = torch.zeros(2, 2, *size), torch.zeros(2, 2, *size)
    add_windows(target, windows, numbers, patch, stride)
    for k in range(4):
        corner = [int(places[1 + a][k]) * stride[a] for a in range(len(patch))]
        area = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        by_hand[(int(places[0][k]), slice(None), *area)] += windows[k]
    torch.testing.assert_close(target, by_hand)


@pytest.mark.parametrize(("size", "layout"), [((12, 8), torch.channels_last), ((8, 8, 4), torch.channels_last_3d)])
def test_images_with_their_channels_last_are_cut_and_pasted_alike(
    size: tuple[int, ...], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    image, numbers = torch.rand(2, 3, *size), torch.tensor([5, 1, 2])
    patch, half = [4] * len(size), [2] * len(size)
    windows = gather_windows(image, numbers, patch, half)
    last = gather_windows(image.to(memory_format=layout), numbers, patch, half)
    assert last.is_contiguous(memory_format=layout)
    torch.testing.assert_close(last, windows)
    for write, stride in ((paste_windows, [patch]), (add_windows, [patch, half])):
        target, other = image.clone(), image.to(memory_format=layout, copy=True)
        write(target, windows, numbers, *stride)
        write(other, last, numbers, *stride)
        torch.testing.assert_close(other, target)
        assert not torch.equal(target, image)


def test_a_target_that_would_be_copied_is_refused() -> None:
    target = torch.zeros(1, 2, 8, 16)[..., ::2]
    for call in (paste_windows, lambda *given: add_windows(*given, [4, 4])):
        with pytest.raises(ValueError, match="target of strides"):
            call(target, torch.ones(1, 2, 4, 4), torch.tensor([0]), [4, 4])


@pytest.mark.parametrize("size", [(16, 24), (8, 16, 24), (17, 24), (4, 24)])
def test_shrinking_takes_means_over_areas(size: tuple[int, ...]) -> None:
    image = torch.rand(2, 3, *size)
    smaller = [max(1, side // 8) for side in size]
    torch.testing.assert_close(shrink(image, 8), F.interpolate(image, smaller, mode="area"))


def test_gaussian_weights_peak_in_the_middle_and_constant_ones_are_flat() -> None:
    weights = window_weights([8, 16], "gaussian", torch.device("cpu"))[0, 0]
    assert weights[3:5, 7:9].min() == weights.max() > 0.8
    torch.testing.assert_close(weights, weights.flip(0, 1))
    assert weights.min() > 0
    assert window_weights([4, 4], "constant", torch.device("cpu")).unique().tolist() == [1.0]
