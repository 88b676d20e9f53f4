"""Tests of the bench of a StyleGAN2 step: what is compared does the same work, and the table shows ratios of it."""

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import nn
from torch.nn import functional as F

TINY = {"image_size": 16, "channel_base": 128, "channel_max": 12, "z_dim": 8, "w_dim": 8}


@pytest.fixture
def bench(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("bench.gan")


@pytest.fixture
def reference(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("bench.gan_reference")


def test_the_published_filter_is_zeros_between_pixels_a_convolution_and_a_step(reference: ModuleType) -> None:
    image = torch.rand(1, 1, 5, 6, dtype=torch.float64)
    sparse = np.zeros((10, 12))
    sparse[::2, ::2] = image[0, 0].numpy()
    kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    expected = convolve2d(np.pad(sparse, ((2, 1), (2, 1))), 4 * kernel, mode="valid")[::3, ::3]
    result = reference.up_fir_down(image, up=2, down=3, padding=(2, 1), gain=4)
    assert np.allclose(result[0, 0].numpy(), expected)


@pytest.mark.parametrize("name", ["groups", "factors"])
def test_the_published_formulation_gives_our_images_and_scores_from_our_weights(bench: ModuleType, name: str) -> None:
    networks = bench.contenders(TINY)
    ours, published = networks["ours"], networks[name]
    z = torch.randn(4, 8)
    images = ours.generator(z, noise="const")
    assert images.std() > 0.1
    assert torch.allclose(published.generator(z, noise="const"), images, atol=1e-5)
    assert torch.allclose(published.discriminator(images), ours.discriminator(images), atol=1e-5)


def test_losses_and_all_gradients_of_a_step_with_r1_agree(bench: ModuleType) -> None:
    assert bench.largest_difference(TINY) < 1e-4


def test_a_contender_that_does_other_work_is_seen_in_the_difference(
    bench: ModuleType, reference: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "TAPS", (1.0, 2.0, 2.0, 1.0))
    assert bench.largest_difference(TINY) > 1e-2


def test_a_step_moves_every_weight_and_gives_every_gradient(bench: ModuleType) -> None:
    contender = bench.contenders(TINY)["groups"]
    networks: dict[str, nn.Module] = {
        "generator": contender.generator,
        "discriminator": contender.discriminator,
        "penalty": contender.discriminator,
    }
    before = {k: p.detach().clone() for n in ("generator", "discriminator") for k, p in _named(n, networks[n])}
    found = bench.step(contender, torch.rand(4, 1, 16, 16) * 2 - 1, penalty=True)
    assert all(not torch.equal(p, before[k]) for n in ("generator", "discriminator") for k, p in _named(n, networks[n]))
    # The penalty does not depend on what is added to the score.
    names = {k for n, network in networks.items() for k, _ in _named(n, network)} - {"penalty.score.bias"}
    assert names | set(networks) <= set(found)


def _named(name: str, network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(f"{name}.{key}", parameter) for key, parameter in network.named_parameters()]


def test_the_published_side_keeps_its_plain_layout_of_weights(bench: ModuleType) -> None:
    for name, contender in bench.contenders(TINY).items():
        for layer in (contender.generator.blocks[2].conv1, contender.discriminator.blocks[0].conv0):
            assert layer.weight.is_contiguous() == (name != "ours")


def test_weights_of_each_image_are_one_convolution_of_n_groups(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    original = F.conv2d

    def counted(*args: torch.Tensor, **options: int) -> torch.Tensor:
        groups.append(options.get("groups", 1))
        return original(*args, **options)

    networks = bench.contenders(TINY)
    monkeypatch.setattr(F, "conv2d", counted)
    networks["groups"].generator(torch.randn(5, 8))
    # Three blocks: a convolution and an image each, apart from the filters, whose groups are channels.
    assert groups.count(5) == 6
    groups.clear()
    networks["factors"].generator(torch.randn(5, 8))
    assert groups.count(1) == 6 + 2  # and the filter of the two images, of one channel


def test_the_table_shows_the_ratio_of_both_formulations_with_its_range(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(bench.PRESETS, "64", TINY)
    threads = torch.get_num_threads()
    bench.main(rows="step", sizes="64", batch=2, threads=threads, rounds=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| step")]
    assert [line.split("|")[1].strip() for line in lines] == [
        "step, groups", "step, factors", "step with R1, groups", "step with R1, factors",
    ]  # fmt: skip
    for line in lines:
        ours, published, middle, least, most = map(float, line.split("|")[2:7])
        assert min(ours, published) > 0
        assert least <= middle <= most


def test_contenders_that_differ_are_not_timed(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "largest_difference", lambda *_: 0.1)
    with pytest.raises(AssertionError, match=r"the contenders differ by 0\.1 in a loss or gradient of 64 px"):
        bench.main(rows="step", sizes="64", threads=torch.get_num_threads())


def test_the_first_image_is_made_by_a_program_that_imports_the_generator(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_here(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert words[:2] == [sys.executable, "-c"]
        space: dict[str, object] = {}
        exec(words[2], space)
        spaces.append(space)
        return subprocess.CompletedProcess(words, 0, capsys.readouterr().out)

    spaces: list[dict[str, object]] = []
    monkeypatch.setattr(subprocess, "run", run_here)
    for name in ("ours", "groups", "factors"):
        assert bench.first_image(name, TINY, threads=torch.get_num_threads()) > 0
    kinds = [type(space["generator"]).__name__ for space in spaces]
    assert kinds == ["Generator", "ReferenceGenerator", "ReferenceGenerator"]
    assert [getattr(space["generator"], "grouped", None) for space in spaces] == [None, True, False]


def test_an_unknown_size_is_refused(bench: ModuleType) -> None:
    with pytest.raises(ValueError, match="sizes: '128' is not one of 64, 256"):
        bench.main(sizes="128")
