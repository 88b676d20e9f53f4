"""Tests of the generator: the paper's widths, the places of its latents, truncation and repeatability."""

import pytest
import torch

from clinbundles.nets.datasetgan.generator import Generator, sizes_up_to


def small(**options: object) -> Generator:
    torch.manual_seed(0)
    return Generator(**{"image_size": 16, "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8} | options)  # type: ignore[arg-type]


def test_the_features_at_the_papers_widths_are_4992() -> None:
    with torch.device("meta"):
        generator = Generator(256, 1, 512, 512, 2, 16384, 512)
    assert sum(generator.feature_channels) == 4992
    assert len(generator.feature_channels) == 14
    assert generator.n_ws == 14
    assert generator.feature_sizes == [4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128, 256, 256]


def test_features_have_the_channels_and_sizes_that_the_generator_names() -> None:
    generator = small()
    image, features = generator.synthesis_features(generator.map(torch.randn(2, 8)))
    assert image.shape == (2, 1, 16, 16)
    assert [f.shape[1] for f in features] == generator.feature_channels
    assert [f.shape[2] for f in features] == generator.feature_sizes
    assert torch.equal(features[0][0], features[0][1])  # the learned constant


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("style", ["modulation", "adain"])
def test_images_of_one_or_three_channels_in_both_styles(channels: int, style: str) -> None:
    assert small(image_channels=channels, style=style)(torch.randn(2, 8)).shape == (2, channels, 16, 16)


@pytest.mark.parametrize("size", [0, 4, 48, 100, 64.5])
def test_a_size_that_is_no_power_of_two_is_refused(size: float) -> None:
    with pytest.raises(ValueError, match=f"image_size is {size}, expected a power of two from 8 on"):
        sizes_up_to(size)


def test_widths_that_leave_nothing_are_refused_by_name() -> None:
    for name in ("image_channels", "z_dim", "w_dim", "mapping_layers"):
        with pytest.raises(ValueError, match=f"{name} is 0, expected 1 or more"):
            Generator(16, **{name: 0})
    with pytest.raises(ValueError, match="channel_base is 8 and channel_max 4: no channel is left at 16 px"):
        Generator(16, channel_base=8, channel_max=4)


def test_each_latent_has_its_layer() -> None:
    generator = small()
    ws = generator.map(torch.randn(1, 8))
    before = generator.synthesis_features(ws)[1]
    for place in range(generator.n_ws):
        changed = ws.clone()
        changed[:, place] += 1
        image, after = generator.synthesis_features(changed)
        first = next((k for k, (a, b) in enumerate(zip(before, after, strict=True)) if not torch.allclose(a, b)), None)
        # The first latent is that of the second map, for the first is a constant; the last one is of the image alone.
        assert first == (place + 1 if place < generator.n_ws - 1 else None)
        assert not torch.allclose(image, generator.synthesize(ws, noise="const"))


def test_truncation_to_nothing_gives_one_image_and_acts_on_the_first_layers_alone() -> None:
    generator = small()
    for _ in range(50):
        generator.mapping.track(generator.mapping(torch.randn(64, 8)))
    z = torch.randn(2, 8)
    ws = generator.map(z, truncation=0.0)
    assert torch.allclose(ws[0], ws[1])
    assert torch.allclose(ws[0, 0], generator.mapping.average)
    full, part = generator.map(z), generator.map(z, truncation=0.5, truncated_layers=2)
    assert torch.equal(part[:, 2:], full[:, 2:])
    assert torch.allclose(part[:, :2], (full[:, :2] + generator.mapping.average) / 2, atol=1e-6)


def test_the_mean_of_w_is_tracked_with_its_decay() -> None:
    generator = small()
    generator.mapping.track(torch.ones(4, 8), beta=0.75)
    generator.mapping.track(torch.ones(4, 8), beta=0.75)
    assert torch.allclose(generator.mapping.average, torch.full((8,), 1 - 0.75**2))


def test_the_size_of_z_does_not_matter() -> None:
    generator = small()
    z = torch.randn(3, 8)
    assert torch.allclose(generator.map(z), generator.map(5 * z), atol=1e-5)


def test_constant_noise_repeats_the_image_and_other_latents_are_refused() -> None:
    generator = small()
    ws = generator.map(torch.randn(2, 8))
    assert torch.equal(generator.synthesize(ws, noise="const"), generator.synthesize(ws, noise="const"))
    with pytest.raises(ValueError, match=r"ws is \(2, 5, 8\), expected \(N, 6, 8\)"):
        generator.synthesize(ws[:, :5])
