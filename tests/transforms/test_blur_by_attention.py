import math
import pickle

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Flip, Flipd, Resized
from monai.transforms.lazy.functional import apply_pending

from clinbundles.transforms import blur
from clinbundles.transforms.blur import (
    AttentionGaussianBlur,
    AttentionGaussianBlurd,
    RandAttentionGaussianBlurd,
    spatially_varying_gaussian_blur,
)

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8]


def random_image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def sample(size=24, seed=0):
    return {"image": random_image(3, size, size, seed=seed), "attention": random_image(1, size, size, seed=seed + 1)}


@pytest.mark.parametrize(("mode", "sign"), [("positive", 1), ("reverse", -1)])
def test_the_width_follows_attention_with_the_sign_of_the_mode(kernel, mode, sign):
    image, attention = random_image(3, 20, 20), random_image(1, 20, 20, seed=1)
    out = AttentionGaussianBlur(0.8, 0.5, 15, mode)(image, attention)
    expected = spatially_varying_gaussian_blur(image, 0.8 + sign * 0.5 * (1 - attention))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("scale", "window"), [(1.0, 15), (0.5, 9), (0.25, 5), (2.0, 29)])
def test_widths_and_window_grow_and_shrink_with_the_scale(scale, window):
    image, attention = random_image(3, 40, 40), random_image(1, 40, 40, seed=1)
    blur_of_scale = AttentionGaussianBlur(0.8, 0.5, 15, scale=scale)
    assert blur_of_scale.kernel_size == window
    expected = spatially_varying_gaussian_blur(image, scale * (0.8 + 0.5 * (1 - attention)), window)
    torch.testing.assert_close(blur_of_scale(image, attention), expected, rtol=0, atol=1e-6)
    by_key = AttentionGaussianBlurd("image", 0.8, 0.5, 15, scale=scale)({"image": image, "attention": attention})
    torch.testing.assert_close(by_key["image"], expected, rtol=0, atol=1e-6)
    drawn = RandAttentionGaussianBlurd("image", 0.8, 0.8, 0.5, scale=scale)({"image": image, "attention": attention})
    torch.testing.assert_close(drawn["image"], expected, rtol=0, atol=1e-6)


def test_the_same_scene_in_two_sizes_loses_the_same_share_of_its_detail():
    """A stripe pattern on 256 px, and on 512 px where each stripe is twice as wide."""

    def detail_left(size):
        stripes = torch.sin(torch.arange(size) * (2 * math.pi * 64 / size)).expand(1, size, size)
        blurred = AttentionGaussianBlur(2.0, 0.0, 31, scale=size / 512)(stripes, torch.zeros(1, size, size))
        return float(blurred.std() / stripes.std())

    assert detail_left(256) == pytest.approx(detail_left(512), abs=0.01)
    assert 0.2 < detail_left(512) < 0.9


def test_what_was_looked_at_stays_sharper_in_positive_mode_and_blurrier_in_reverse(kernel):
    image = random_image(1, 60, 60)
    attention = torch.zeros(1, 60, 60)
    attention[..., 30:] = 1
    for mode, sharper in (("positive", slice(38, 60)), ("reverse", slice(0, 22))):
        out = AttentionGaussianBlur(0.6, mode=mode)(image, attention)
        other = slice(0, 22) if sharper.start else slice(38, 60)
        assert out[..., sharper].var() > 1.2 * out[..., other].var()


def test_reverse_mode_copies_where_the_width_would_be_negative(kernel):
    image = random_image(3, 20, 20)
    attention = torch.zeros(1, 20, 20)
    attention[..., 15:] = 1
    out = AttentionGaussianBlur(0.25, weight=2.0, mode="reverse")(image, attention)  # widths -1.75 and 0.25
    assert torch.equal(out[..., :15], image[..., :15])
    assert not torch.equal(out[..., 15:], image[..., 15:])


def test_a_full_map_gives_sigma_base_in_both_modes():
    image, full = random_image(3, 20, 20), torch.ones(1, 20, 20)
    positive, reverse = (AttentionGaussianBlur(1.0, mode=mode)(image, full) for mode in ("positive", "reverse"))
    assert torch.equal(positive, reverse)


def test_batches_and_numpy_go_through_the_transform():
    images, maps = random_image(2, 3, 20, 20), random_image(2, 1, 20, 20, seed=1)
    transform = AttentionGaussianBlur(1.0)
    out = transform(images, maps)
    assert torch.equal(out[1], transform(images[1], maps[1]))
    torch.testing.assert_close(transform(images[0].numpy(), maps[0].numpy()), MetaTensor(out[0]))
    assert transform(images[0].half(), maps[0].half()).dtype == torch.float16


def test_maps_of_another_size_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(1, 20, 20\) for image \(3, 20, 20\), got \(1, 10, 10\)"):
        AttentionGaussianBlur(1.0)(torch.zeros(3, 20, 20), torch.zeros(1, 10, 10))


@pytest.mark.parametrize("value", [1.5, -0.1, 255.0, math.nan, math.inf])
def test_maps_outside_zero_and_one_are_refused(value):
    attention = torch.zeros(1, 20, 20)
    attention[0, 5, 5] = value
    with pytest.raises(ValueError, match=r"attention must lie in \[0, 1\]"):
        AttentionGaussianBlur(1.0)(torch.zeros(3, 20, 20), attention)


def test_rounding_at_the_ends_of_the_map_is_forgiven():
    image, full = random_image(3, 20, 20), torch.ones(1, 20, 20)
    blurred = AttentionGaussianBlur(1.0)(image, full * (1 + 1e-6))
    assert torch.equal(blurred, AttentionGaussianBlur(1.0)(image, full))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma_base": -1.0}, "sigma_base.*-1.0"),
        ({"sigma_base": math.nan}, "sigma_base.*nan"),
        ({"sigma_base": 1.0, "weight": -0.1}, "weight.*-0.1"),
        ({"sigma_base": 1.0, "kernel_size": 4}, "kernel_size.*4"),
        ({"sigma_base": 1.0, "mode": "negative"}, 'mode.*"positive" or "reverse".*negative'),
    ],
)
def test_wrong_parameters_are_named_when_the_transform_is_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttentionGaussianBlur(**arguments)
    with pytest.raises(ValueError, match=message):
        AttentionGaussianBlurd("image", **arguments)


def test_the_random_transform_wants_an_ordered_range():
    with pytest.raises(ValueError, match=r"sigma_min must not exceed sigma_max, got 0.5 and 0.2"):
        RandAttentionGaussianBlurd("image", sigma_min=0.5, sigma_max=0.2)


def test_the_dictionary_form_blurs_every_key_and_leaves_the_rest():
    data = sample() | {"other": random_image(1, 24, 24, seed=5), "label": torch.zeros(1)}
    out = AttentionGaussianBlurd(["image", "other"], 1.0)(data)
    expected = AttentionGaussianBlur(1.0)
    for key in ("image", "other"):
        assert torch.equal(out[key], expected(data[key], data["attention"]))
    assert out["label"] is data["label"]
    assert out["attention"] is data["attention"]


@pytest.mark.parametrize("make", [lambda **k: AttentionGaussianBlurd("image", 1.0, **k), RandAttentionGaussianBlurd])
@pytest.mark.parametrize("absent", [True, False])
def test_a_sample_without_attention_passes_only_when_allowed(make, absent):
    data = {"image": random_image(3, 20, 20)} | ({} if absent else {"attention": None})
    arguments = {"keys": "image"} if make is RandAttentionGaussianBlurd else {}
    with pytest.raises(KeyError, match="no attention map at 'attention'"):
        make(**arguments)(data)
    assert torch.equal(make(**arguments, allow_missing_attention=True)(data)["image"], data["image"])


def test_the_map_may_lie_under_another_key_and_images_may_be_missing():
    data = sample()
    data["gaze"] = data.pop("attention")
    transform = AttentionGaussianBlurd(["image", "none"], 1.0, attention_key="gaze", allow_missing_keys=True)
    assert not torch.equal(transform(data)["image"], data["image"])
    with pytest.raises(KeyError, match="none"):
        AttentionGaussianBlurd(["image", "none"], 1.0, attention_key="gaze")(data)


def test_the_random_width_is_uniform_and_drawn_once_a_sample():
    transform = RandAttentionGaussianBlurd(["image", "copy"], sigma_min=0.2, sigma_max=0.6)
    transform.set_random_state(seed=0)
    data = sample()
    data["copy"] = data["image"].clone()
    draws = []
    for _ in range(200):
        out = transform(data)
        draws.append(transform.blur.sigma_base)
        assert torch.equal(out["image"], out["copy"])
    assert 0.2 <= min(draws) < 0.22
    assert 0.58 < max(draws) <= 0.6
    assert np.mean(draws) == pytest.approx(0.4, abs=0.03)


def test_the_same_seed_gives_the_same_blur_under_compose_and_another_seed_another():
    data = sample()

    def run(seed):
        chain = Compose([RandAttentionGaussianBlurd("image", mode="reverse")]).set_random_state(seed=seed)
        return [chain(data)["image"] for _ in range(3)]

    assert all(torch.equal(a, b) for a, b in zip(run(7), run(7), strict=True))
    assert not torch.equal(run(7)[0], run(8)[0])
    first, second, _ = run(7)
    assert not torch.equal(first, second)


def test_a_sample_without_attention_does_not_shift_the_sequence():
    with_map, without = sample(), {"image": random_image(3, 24, 24)}

    def last(first):
        transform = RandAttentionGaussianBlurd("image", allow_missing_attention=True).set_random_state(seed=3)
        transform(first)
        return transform(with_map)["image"]

    assert torch.equal(last(with_map), last(without))


def test_metadata_and_pending_operations_stay_on_the_image(kernel):
    image = MetaTensor(random_image(3, 20, 20), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])))
    image.meta["source"] = "frame.png"
    Flip(0)(image)
    pending = Flip(spatial_axis=1, lazy=True)(image)
    attention = random_image(1, 20, 20, seed=1)
    out = AttentionGaussianBlur(1.0)(pending, attention)
    assert isinstance(out, MetaTensor)
    assert out.meta["source"] == "frame.png"
    assert torch.equal(out.affine, pending.affine)
    assert [step["class"] for step in out.pending_operations] == ["Flip"]
    assert len(pending.pending_operations) == 1
    flipped, _ = apply_pending(out)
    expected = AttentionGaussianBlur(1.0)(image.as_tensor(), attention).flip(-1)
    torch.testing.assert_close(flipped.as_tensor().float(), expected)
    assert len(pending.pending_operations) == 1


def test_operations_pending_on_one_of_the_two_only_are_refused():
    image, attention = MetaTensor(random_image(3, 20, 20)), MetaTensor(random_image(1, 20, 20, seed=1))
    with pytest.raises(ValueError, match=r"image has pending operations \['Flip'\], attention \[\]"):
        AttentionGaussianBlur(1.0)(Flip(0, lazy=True)(image), attention)


def test_a_lazy_chain_gives_what_the_eager_chain_gives():
    data = {key: MetaTensor(value) for key, value in sample(32).items()}

    def chain(lazy):
        keys = ["image", "attention"]
        return Compose(
            [
                Flipd(keys, spatial_axis=1),
                Resized(keys, (24, 20), mode="bilinear"),
                AttentionGaussianBlurd("image", 1.0),
                Flipd(keys, spatial_axis=0),
            ],
            lazy=lazy,
        )(data)

    eager, lazy = chain(False)["image"], chain(True)["image"]
    assert lazy.shape == (3, 24, 20)
    assert not lazy.pending_operations
    torch.testing.assert_close(lazy.as_tensor().float(), eager.as_tensor().float(), rtol=0, atol=1e-4)


def test_the_transforms_survive_pickling():
    data = sample()
    transform = pickle.loads(pickle.dumps(AttentionGaussianBlurd("image", 1.0)))
    assert torch.equal(transform(data)["image"], AttentionGaussianBlurd("image", 1.0)(data)["image"])


def loaded(context, workers):
    transform = RandAttentionGaussianBlurd("image", mode="reverse").set_random_state(seed=1)
    data = Dataset([sample(size=160, seed=seed) for seed in range(4)], transform)
    torch.manual_seed(0)
    loader = DataLoader(data, batch_size=2, num_workers=workers, multiprocessing_context=context)
    return torch.cat([batch["image"] for batch in loader])


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_forked_workers_blur_after_the_parent_did_and_repeat_themselves():
    parent = RandAttentionGaussianBlurd("image")(sample(size=160))  # threads have run here before the fork
    assert parent["image"].shape == (3, 160, 160)
    first, second = loaded("fork", 2), loaded("fork", 2)
    assert first.shape == (4, 3, 160, 160)
    assert torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_spawned_workers_blur_like_forked_ones():
    assert torch.equal(loaded("spawn", 2), loaded("fork", 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gpu_gives_what_the_cpu_gives(monkeypatch, fused, dtype):
    images, maps = random_image(2, 3, 50, 70), random_image(2, 1, 50, 70, seed=1)
    images = (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)
    transform = AttentionGaussianBlur(0.2, weight=1.5, mode="reverse")
    expected = transform(images, maps)
    if not fused:
        monkeypatch.setattr(blur, "_fused_kernel", lambda device_type: None)
    out = transform(images.cuda(), maps)
    assert out.is_cuda
    assert out.dtype == dtype
    tolerance = 1 if dtype == torch.uint8 else max(2 * torch.finfo(dtype).eps, 2e-6)
    assert (out.cpu().double() - expected.double()).abs().max() <= tolerance


def test_each_image_of_a_batch_draws_its_own_width() -> None:
    image, attention = torch.rand(1, 3, 24, 24).expand(3, -1, -1, -1), torch.ones(3, 1, 24, 24)
    transform = RandAttentionGaussianBlurd("image", sigma_min=0.4, sigma_max=1.2)
    transform.set_random_state(2)
    out = transform({"image": image, "attention": attention})["image"]
    widths = np.random.RandomState(2).uniform(0.4, 1.2, 3)
    assert np.ptp(widths) > 0.1
    for blurred, plain, width in zip(out, image, widths, strict=True):
        torch.testing.assert_close(blurred, AttentionGaussianBlur(float(width))(plain, attention[0]), rtol=0, atol=1e-6)
