import math

import numpy as np
import pytest
import torch
from scipy import stats

from clinbundles.nets.datasetgan.affine_warp import warp
from clinbundles.nets.datasetgan.augmentation import BLIT, COLOR, GEOMETRY, TRANSFORMS, AdaptiveAugmentation, Parameters
from clinbundles.nets.datasetgan.color_maps import recolor

SIDE = 64
COUNT = 20_000


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def images() -> torch.Tensor:
    return 2 * torch.rand(40, 3, 8, 8) - 1


def draw(transforms: str | list[str], probability: float = 1.0, channels: int = 3) -> Parameters:
    return AdaptiveAugmentation(transforms, probability).draw((COUNT, channels, SIDE, SIDE))


def applied(parameters: Parameters) -> np.ndarray:
    """Which images are changed."""
    return (
        parameters.flip
        | (parameters.quarter_turns > 0)
        | (parameters.inverse != torch.eye(3)).flatten(1).any(1)
        | (parameters.color != torch.eye(4)).flatten(1).any(1)
    ).numpy()


def assert_share(values: np.ndarray, expected: float) -> None:
    """A share that a right one misses once in 10 000 seeds."""
    low, high = stats.binom.interval(1 - 1e-4, len(values), expected)
    assert low <= values.sum() <= high, (values.mean(), expected)


def assert_normal(values: torch.Tensor, deviation: float) -> None:
    assert stats.kstest(values.double().numpy(), "norm", args=(0, deviation)).pvalue > 1e-3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_probability_0_images_come_back_to_the_last_bit(channels: int, dtype: torch.dtype) -> None:
    augmentation = AdaptiveAugmentation("bgc")
    images = torch.randn(6, channels, 16, 16).to(dtype)
    assert torch.equal(augmentation(images), images)
    # As on a device that is not asked for the probability.
    assert torch.equal(augmentation.apply_parameters(images, augmentation.draw(images.shape)), images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_images_keep_shape_and_type_and_the_input_is_not_changed(channels: int, dtype: torch.dtype) -> None:
    images = torch.randn(6, channels, 16, 16).to(dtype)
    before = images.clone()
    augmented = AdaptiveAugmentation("bgc", 0.8)(images)
    assert augmented.shape == images.shape
    assert augmented.dtype == dtype
    assert not torch.equal(augmented, images)
    assert torch.equal(images, before)


SHARES = {
    "x_flip": 1 / 2,
    "rotate_90": 3 / 4,
    # Shifts of both axes round to zero once in 16² times: 1 of 16 pixels' width.
    "integer_translation": 1 - 1 / 256,
    "luma_flip": 1 / 2,
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_each_transform_alone_is_applied_with_the_probability(name: str) -> None:
    assert_share(applied(draw([name], 0.3)), 0.3 * SHARES.get(name, 1))


def test_in_the_full_pipe_transforms_are_applied_independently_and_one_of_two_rotations_with_the_probability() -> None:
    parameters = draw("bgc", 0.3)
    linear = parameters.inverse[:, :2, :2]
    turned = (linear[:, 0, 1] != 0) | (linear[:, 1, 0] != 0)
    assert_share(turned.numpy(), 0.3)
    assert_share((turned & parameters.flip).numpy(), 0.3 * 0.15)
    scaled = (torch.linalg.det(linear) - 1).abs() > 1e-5
    assert_share((turned & scaled).numpy(), 0.3 * 0.3)
    unchanged = 0.7**8 * (1 - 0.3 * 255 / 256) * (1 - 0.3 * 0.75) * 0.85**2
    assert_share(~applied(parameters), unchanged)


def test_a_flip_and_quarter_turns_move_pixels() -> None:
    images = torch.randn(60, 3, 8, 8)
    flipped = AdaptiveAugmentation(["x_flip"], 1.0)(images)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert 10 < mirrored.sum() < 50
    assert torch.equal(flipped[~mirrored], images[~mirrored])
    turned = AdaptiveAugmentation(["rotate_90"], 1.0)(images)
    turns = torch.stack([(turned == images.rot90(k, (2, 3))).flatten(1).all(1) for k in range(4)])
    assert (turns.sum(0) == 1).all()
    assert (turns.sum(1) > 5).all()


def test_integer_translation_is_by_up_to_an_eighth_of_the_side() -> None:
    shifts = draw(["integer_translation"]).inverse[:, :2, 2]
    assert torch.equal(shifts, shifts.round())
    assert shifts.abs().amax(0).tolist() == [8, 8]
    counts = np.bincount((shifts[:, 0] + 8).long(), minlength=17)
    assert stats.chisquare(counts, COUNT * np.array([0.5, *[1] * 15, 0.5]) / 16).pvalue > 1e-3
    assert abs(np.corrcoef(shifts.T.numpy())[0, 1]) < 0.03


def test_integer_translation_copies_pixels_away_from_the_border() -> None:
    images = torch.randn(100, 1, 16, 16, dtype=torch.float64)
    moved = AdaptiveAugmentation(["integer_translation"], 1.0)(images)
    shifts = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    errors = torch.stack(
        [(moved - images.roll(shift, (2, 3)))[..., 2:-2, 2:-2].abs().amax((1, 2, 3)) for shift in shifts]
    )
    assert ((errors < 1e-9).sum(0) == 1).all()
    assert ((errors < 1e-9).sum(1) > 0).sum() > 20


def test_scales_and_fractional_shifts_have_the_papers_distributions() -> None:
    scale = draw(["isotropic_scale"]).inverse
    assert torch.equal(scale[:, 0, 0], scale[:, 1, 1])
    assert_normal(-scale[:, 0, 0].log2(), 0.2)
    scale = draw(["anisotropic_scale"]).inverse
    assert torch.allclose(scale[:, 0, 0] * scale[:, 1, 1], torch.ones(COUNT))
    assert_normal(-scale[:, 0, 0].log2(), 0.2)
    shift = draw(["fractional_translation"]).inverse[:, :2, 2]
    assert_normal(shift[:, 0] / SIDE, 0.125)
    assert_normal(shift[:, 1] / SIDE, 0.125)
    assert abs(np.corrcoef(shift.T.numpy())[0, 1]) < 0.03


def test_rotations_go_around_the_full_circle_and_only_turn() -> None:
    linear = draw(["rotation"], 0.5).inverse[:, :2, :2]
    linear = linear[(linear != torch.eye(2)).flatten(1).any(1)]
    assert torch.allclose(linear @ linear.mT, torch.eye(2), atol=1e-5)
    assert torch.allclose(torch.linalg.det(linear), torch.ones(len(linear)), atol=1e-5)
    angles = torch.atan2(linear[:, 1, 0], linear[:, 0, 0]).double().numpy()
    assert stats.kstest(angles, "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 1e-3


def test_the_geometry_is_composed_in_the_papers_order() -> None:
    # Whole pixels come first: the inverse undoes them last, unscaled.
    shift = draw(["integer_translation", "isotropic_scale", "rotation"]).inverse[:, :2, 2]
    assert torch.equal(shift, shift.round())
    assert shift.abs().max() == 8
    # Fractions come last: the map itself moves by them, unscaled and unturned.
    forward = torch.linalg.inv(draw(["fractional_translation", "isotropic_scale", "rotation"]).inverse.double())
    assert_normal(forward[:, 0, 2] / SIDE, 0.125)
    # With a rotation before and one after it, the uneven scale lies along axes of every direction, on both sides.
    left, scales, right = torch.linalg.svd(draw(["rotation", "anisotropic_scale"]).inverse[:, :2, :2])
    assert torch.allclose(scales.prod(1), torch.ones(COUNT), atol=1e-4)
    for vectors in (left[:, :, 0], right[:, 0]):
        angles = torch.atan2(vectors[:, 1], vectors[:, 0]).remainder(math.pi).double().numpy()
        assert stats.kstest(angles, "uniform", args=(0, math.pi)).pvalue > 1e-3


def test_colours_have_the_papers_distributions_and_order() -> None:
    assert_normal(draw(["brightness"]).color[:, 0, 3], 0.2)
    assert_normal(draw(["contrast"]).color[:, 2, 2].log2(), 0.5)
    # The distance from grey is 2/3 of a pure colour's, times the saturation.
    saturation = draw(["saturation"]).color
    assert_normal((saturation[:, 0, 0] - saturation[:, 0, 1]).log2(), 1)
    hue = draw(["hue"]).color
    angles = torch.atan2(
        (hue[:, 1, 0] - hue[:, 2, 0]) / math.sqrt(3), (2 * hue[:, 0, 0] - hue[:, 1, 0] - hue[:, 2, 0]) / 3
    )
    assert stats.kstest(angles.double().numpy(), "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 1e-3
    # Contrast scales the brightness, which comes before it.
    both = draw(["brightness", "contrast"]).color
    assert_normal(both[:, 0, 3] / both[:, 0, 0], 0.2)


def test_forward_does_what_is_drawn(images: torch.Tensor) -> None:
    augmentation = AdaptiveAugmentation("bgc", 0.5)
    torch.manual_seed(3)
    augmented = augmentation(images)
    torch.manual_seed(3)
    parameters = augmentation.draw(images.shape)
    for number, image in enumerate(images):
        moved = image.flip(-1) if parameters.flip[number] else image
        moved = moved.rot90(int(parameters.quarter_turns[number]), (1, 2))[None]
        moved = warp(moved, parameters.inverse[number : number + 1])
        expected = recolor(moved, parameters.color[number : number + 1])[0]
        assert torch.allclose(augmented[number], expected, atol=1e-4)


def test_hue_and_saturation_leave_one_channel_alone() -> None:
    assert not applied(draw(["hue", "saturation"], channels=1)).any()
    images = torch.randn(5, 1, 8, 8)
    assert torch.equal(AdaptiveAugmentation(["hue", "saturation"], 1.0)(images), images)


def test_bgc_negates_half_of_the_grey_images_and_ct_none() -> None:
    for channels in (1, 3):
        ramp = torch.linspace(-1, 1, 8).expand(200, channels, 8, 8)
        flipped = AdaptiveAugmentation(["luma_flip"], 1.0)(ramp)
        negated = (flipped + ramp).abs().flatten(1).amax(1) < 1e-5
        assert 60 < negated.sum() < 140
        assert torch.equal(flipped[~negated], ramp[~negated])
        for name, expected in (("bgc", True), ("ct", False)):
            color = draw(name, channels=channels).color[:, :3, :3].sum((1, 2))
            assert (color < 0).any().item() is expected


def test_groups_are_those_of_the_paper_and_can_be_joined_with_names() -> None:
    assert AdaptiveAugmentation("bgc").transforms == set(TRANSFORMS)
    assert AdaptiveAugmentation("bg").transforms == set(BLIT + GEOMETRY)
    assert AdaptiveAugmentation(["blit", "geom", "color"]).transforms == set(TRANSFORMS)
    assert AdaptiveAugmentation(["b", "hue"]).transforms == {*BLIT, "hue"}
    assert AdaptiveAugmentation("ct").transforms == {*BLIT, *GEOMETRY, *COLOR} - {"luma_flip"}
    assert AdaptiveAugmentation([], 0.5).transforms == set()


def test_the_probability_is_read_anew_from_the_state(images: torch.Tensor) -> None:
    augmentation = AdaptiveAugmentation("bgc")
    augmentation.load_state_dict(AdaptiveAugmentation("bgc", 1.0).state_dict())
    assert not torch.equal(augmentation(images), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_whole_pipe_can_be_differentiated_twice(channels: int) -> None:
    augmentation = AdaptiveAugmentation("bgc", 0.7)
    images = torch.randn(3, channels, 5, 5, dtype=torch.float64, requires_grad=True)
    parameters = augmentation.draw(images.shape)
    assert applied(parameters).any()

    def apply(values: torch.Tensor) -> torch.Tensor:
        return augmentation.apply_parameters(values, parameters)

    assert torch.autograd.gradcheck(apply, images)
    assert torch.autograd.gradgradcheck(apply, images)


def test_the_pipe_computes_in_full_precision_under_autocast(images: torch.Tensor) -> None:
    augmentation = AdaptiveAugmentation("bgc", 0.5)
    parameters = augmentation.draw(images.shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        augmented = augmentation.apply_parameters(images, parameters)
    assert torch.equal(augmented, augmentation.apply_parameters(images, parameters))


@pytest.mark.parametrize(
    ("shape", "words"),
    [((2, 3, 8, 6), r"\(2, 3, 8, 6\)"), ((2, 2, 8, 8), r"\(2, 2, 8, 8\)"), ((3, 8, 8), r"\(3, 8, 8\)")],
)
def test_images_that_are_not_square_or_neither_grey_nor_coloured_are_refused(
    shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        AdaptiveAugmentation("bgc")(torch.zeros(shape))


def test_unknown_names_and_probabilities_outside_0_to_1_are_refused() -> None:
    with pytest.raises(ValueError, match="'cutout', which is none of"):
        AdaptiveAugmentation(["b", "cutout"])
    for probability in (-0.1, 1.2, math.nan):
        with pytest.raises(ValueError, match="probability must be of 0 to 1"):
            AdaptiveAugmentation("bgc", probability)
