"""Sums of rows against torch's resizing, and their gradients."""

import pytest
import torch
from torch.nn import functional as F

from clinbundles.nets.datasetgan.bilinear_rows import Resize, gathered_sum, neighbours, weighted_sum


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("size", "full"), [((4, 4), (32, 32)), ((8, 8), (8, 8)), ((5, 3), (12, 16)), ((1, 2), (4, 4))])
def test_four_neighbours_of_every_pixel_make_the_resized_image(size: tuple[int, int], full: tuple[int, int]) -> None:
    image = torch.randn(1, 3, *size)
    places = torch.arange(full[0] * full[1])
    index, shares = neighbours(places // full[1], places % full[1], size, full)
    sums = weighted_sum(image[0].flatten(1).T, index, shares)
    expected = F.interpolate(image, size=full, mode="bilinear", align_corners=False)
    torch.testing.assert_close(sums.T.view(3, *full), expected[0], atol=1e-5, rtol=0)


def test_rows_of_half_precision_are_summed_in_single_precision() -> None:
    table = torch.randn(50, 7, dtype=torch.float16)
    places, shares = torch.randint(0, 50, (20, 4)), torch.rand(20, 4)
    sums = gathered_sum(table, places, shares, torch.float32)
    torch.testing.assert_close(sums, (table.float()[places] * shares[..., None]).sum(1))


def test_sums_of_joined_tables_have_the_gradients_of_plain_sums() -> None:
    lengths = [6, 9]
    taps = [(torch.randint(0, length - 1, (20, 4)), torch.rand(20, 4).double()) for length in lengths]  # a row unused
    resize = Resize.joined(taps, lengths)
    assert resize is not None
    table = torch.randn(sum(lengths), 3, dtype=torch.float64, requires_grad=True)
    pairs = zip(table.split(lengths), taps, strict=True)
    parts = [part[places].mul(shares[..., None]).sum(1) for part, (places, shares) in pairs]
    torch.testing.assert_close(resize(table), sum(parts))
    assert torch.autograd.gradcheck(resize, (table,))


def test_no_table_makes_no_sum() -> None:
    assert Resize.joined([], []) is None
