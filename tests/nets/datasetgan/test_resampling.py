"""Tests of the resampling by two: against scipy's convolution with zeros between and around the pixels."""

from functools import partial

import numpy as np
import torch
from scipy.signal import convolve2d

from clinbundles.nets.datasetgan.resampling import TAPS, double, halve, low_pass

KERNEL = np.outer(TAPS, TAPS)


def test_the_taps_are_binomial_and_sum_to_one() -> None:
    assert np.allclose(np.array(TAPS) * 8, [1, 3, 3, 1])


def test_the_low_pass_is_a_convolution_with_zeros_around() -> None:
    image = torch.rand(1, 2, 6, 5, dtype=torch.float64)
    result = low_pass(image, padding=2, gain=3.0)
    for channel in range(2):
        full = convolve2d(image[0, channel].numpy(), KERNEL * 3, mode="full")
        assert np.allclose(result[0, channel].numpy(), full[1:-1, 1:-1])


def test_doubling_puts_zeros_between_the_pixels_and_filters_with_gain_four() -> None:
    image = torch.rand(1, 1, 5, 4, dtype=torch.float64)
    sparse = np.zeros((10, 8))
    sparse[::2, ::2] = image[0, 0].numpy()
    full = convolve2d(sparse, KERNEL * 4, mode="full")
    assert np.allclose(double(image)[0, 0].numpy(), full[1:-2, 1:-2])


def test_halving_filters_and_takes_every_second_pixel() -> None:
    image = torch.rand(1, 1, 8, 6, dtype=torch.float64)
    full = convolve2d(image[0, 0].numpy(), KERNEL, mode="full")
    assert np.allclose(halve(image)[0, 0].numpy(), full[2:-1:2, 2:-1:2])


def test_a_flat_image_stays_flat_inside() -> None:
    flat = torch.ones(1, 1, 8, 8)
    assert torch.allclose(double(flat)[..., 2:-2, 2:-2], torch.ones(12, 12))
    assert torch.allclose(halve(flat)[..., 1:-1, 1:-1], torch.ones(2, 2))


def test_all_three_can_be_differentiated_twice() -> None:
    image = torch.rand(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    filters = [partial(low_pass, padding=padding, gain=2.0) for padding in range(4)]
    for function in (double, halve, *filters):
        assert torch.autograd.gradcheck(function, (image,))
        assert torch.autograd.gradgradcheck(function, (image,))
