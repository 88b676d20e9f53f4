import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clinbundles.transforms import blur
from clinbundles.transforms.blur import AttentionGaussianBlur, spatially_varying_gaussian_blur

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8]


def brute_force(image, sigma, kernel_size=15):
    """The definition, pixel by pixel in float64, with numpy alone."""
    radius = kernel_size // 2
    image = np.asarray(image, dtype=np.float64)
    sigma = np.asarray(sigma, dtype=np.float64)[0]
    padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    out = image.copy()
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            if sigma[y, x] > 0.01:
                kernel = np.exp(-(dx**2 + dy**2) / (2 * sigma[y, x] ** 2))
                window = padded[:, y : y + kernel_size, x : x + kernel_size]
                out[:, y, x] = (window * kernel).sum((1, 2)) / kernel.sum()
    return torch.from_numpy(out)


def random_image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 40, 40), (1, 8, 8), (2, 8, 61), (3, 70, 9)])
@pytest.mark.parametrize("widest", [0.05, 0.8, 2.0, 30.0])
def test_the_blur_equals_the_definition_at_every_pixel(kernel, shape, widest):
    image = random_image(*shape)
    sigma = widest * random_image(1, *shape[1:], seed=1)
    out = spatially_varying_gaussian_blur(image, sigma)
    assert (out - brute_force(image, sigma)).abs().max() < 1e-6


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 15, 31])
def test_the_window_has_the_size_asked_for(kernel, kernel_size):
    image, sigma = random_image(2, 33, 35), 0.3 + 3 * random_image(1, 33, 35, seed=1)
    out = spatially_varying_gaussian_blur(image, sigma, kernel_size)
    assert (out - brute_force(image, sigma, kernel_size)).abs().max() < 1e-6


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(4, 20),
    width=st.integers(4, 20),
    sigmas=st.lists(
        st.one_of(st.floats(-2, 0.02), st.floats(0.02, 5), st.sampled_from([0.01, 1e6, math.inf])), min_size=1
    ),
    fused=st.booleans(),
)
def test_any_mixture_of_widths_equals_the_definition(height, width, sigmas, fused):
    image = random_image(2, height, width)
    sigma = torch.tensor(sigmas, dtype=torch.float32).repeat(height * width)[: height * width].view(1, height, width)
    with pytest.MonkeyPatch.context() as patch:
        if not fused:
            patch.setattr(blur, "_fused_kernel", lambda device_type: None)
        out = spatially_varying_gaussian_blur(image, sigma, 7)
    assert (out - brute_force(image, sigma.double().where(sigma > 0.01, 0.0), 7)).abs().max() < 1e-6


def test_many_strips_and_threads_give_the_same_as_one_row_at_a_time(kernel):
    threads = torch.get_num_threads()
    image, sigma = random_image(3, 200, 160), 2 * random_image(1, 200, 160, seed=1)
    try:
        torch.set_num_threads(2)
        several = spatially_varying_gaussian_blur(image, sigma)
        torch.set_num_threads(1)
        single = spatially_varying_gaussian_blur(image, sigma)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(several, single)
    rows = slice(90, 110)
    window = spatially_varying_gaussian_blur(image[:, 80:120].contiguous(), sigma[:, 80:120].contiguous())[:, 10:30]
    torch.testing.assert_close(several[:, rows], window, rtol=0, atol=1e-6)


def test_float64_images_are_blurred_in_float64(kernel):
    image, sigma = random_image(1, 12, 12).double(), 2 * random_image(1, 12, 12, seed=1).double()
    sigma[0, 0, 0] = 0.005
    # The cut-off drops weights below exp(-20) of the centre.
    assert (spatially_varying_gaussian_blur(image, sigma) - brute_force(image, sigma)).abs().max() < 1e-8


def test_a_constant_image_stays_constant(kernel):
    out = spatially_varying_gaussian_blur(torch.full((3, 30, 30), 0.7), 3 * random_image(1, 30, 30))
    torch.testing.assert_close(out, torch.full_like(out, 0.7), rtol=0, atol=5e-7)


def test_a_uniform_width_keeps_the_mass_of_a_spot(kernel):
    image = torch.zeros(1, 41, 41)
    image[0, 20, 20] = 1
    out = spatially_varying_gaussian_blur(image, torch.full((1, 41, 41), 1.0))
    assert out.sum().item() == pytest.approx(1, abs=1e-5)
    assert out.max().item() == out[0, 20, 20].item() == pytest.approx(0.159, abs=5e-4)


@pytest.mark.parametrize(("sigma", "centre"), [(0.2, 1.0), (0.3, 0.985), (0.4, 0.845), (0.5, 0.619), (1.0, 0.159)])
def test_the_centre_weighs_what_a_normalised_window_gives_it(kernel, sigma, centre):
    image = torch.zeros(1, 15, 15)
    image[0, 7, 7] = 1
    out = spatially_varying_gaussian_blur(image, torch.full((1, 15, 15), sigma))
    assert out[0, 7, 7].item() == pytest.approx(centre, abs=6e-4)


def test_widths_up_to_a_fifth_of_a_pixel_are_the_identity_in_practice(kernel):
    image = random_image(3, 20, 20)
    out = spatially_varying_gaussian_blur(image, 0.2 * random_image(1, 20, 20, seed=1))
    torch.testing.assert_close(out, image, rtol=0, atol=2e-5)


@pytest.mark.parametrize("sigma", [0.01, 0.0, -1.0, -math.inf])
def test_a_width_of_nothing_or_less_copies_the_pixel_bit_for_bit(kernel, sigma):
    image = random_image(3, 20, 20)
    widths = torch.full((1, 20, 20), 1.5)
    widths[0, 4:9] = sigma
    out = spatially_varying_gaussian_blur(image, widths)
    assert torch.equal(out[:, 4:9], image[:, 4:9])
    assert not torch.equal(out[:, 10:], image[:, 10:])


def test_a_copied_pixel_does_not_see_its_broken_neighbours(kernel):
    image = random_image(1, 20, 20)
    image[0, 10, 10], image[0, 10, 12] = math.nan, math.inf
    widths = torch.ones(1, 20, 20)
    widths[0, 10, 11] = 0
    out = spatially_varying_gaussian_blur(image, widths)
    assert out[0, 10, 11] == image[0, 10, 11]
    assert out[0, 9, 10].isnan()


@pytest.mark.parametrize("flip", [(-1,), (-2,), (-1, -2)])
def test_the_blur_commutes_with_flips(kernel, flip):
    image, sigma = random_image(3, 30, 26), 2 * random_image(1, 30, 26, seed=1)
    out = spatially_varying_gaussian_blur(image, sigma).flip(flip)
    mirrored = spatially_varying_gaussian_blur(image.flip(flip), sigma.flip(flip))
    torch.testing.assert_close(out, mirrored, rtol=0, atol=1e-6)


def test_the_blur_commutes_with_transposition(kernel):
    image, sigma = random_image(2, 30, 26), 2 * random_image(1, 30, 26, seed=1)
    out = spatially_varying_gaussian_blur(image, sigma).transpose(-1, -2)
    turned = spatially_varying_gaussian_blur(image.transpose(-1, -2), sigma.transpose(-1, -2))
    torch.testing.assert_close(out, turned, rtol=0, atol=1e-6)


def test_a_batch_is_blurred_like_its_images(kernel):
    images, sigmas = random_image(2, 3, 3, 18, 20), 2 * random_image(2, 3, 1, 18, 20, seed=1)
    out = spatially_varying_gaussian_blur(images, sigmas)
    assert out.shape == images.shape
    assert torch.equal(out[1, 2], spatially_varying_gaussian_blur(images[1, 2], sigmas[1, 2]))
    assert spatially_varying_gaussian_blur(images[:0], sigmas[:0]).shape == (0, 3, 3, 18, 20)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_dtype_comes_back_and_is_as_exact_as_it_can_hold(kernel, dtype):
    image = random_image(3, 20, 20)
    image = (image * 255).to(dtype) if dtype == torch.uint8 else image.to(dtype)
    sigma = 2 * random_image(1, 20, 20, seed=1)
    out = spatially_varying_gaussian_blur(image, sigma)
    exact = brute_force(image.double(), sigma)
    assert out.dtype == dtype
    tolerance = 0.5 + 1e-4 if dtype == torch.uint8 else max(torch.finfo(dtype).eps, 1e-6)
    assert (out.double() - exact).abs().max() <= tolerance


def test_white_uint8_stays_white(kernel):
    white = torch.full((3, 20, 20), 255, dtype=torch.uint8)
    assert torch.equal(spatially_varying_gaussian_blur(white, 2 * random_image(1, 20, 20)), white)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel_size", [1, 15])
def test_the_input_is_not_changed_nor_shared(kernel, dtype, kernel_size):
    image = (random_image(3, 20, 20) * 200).to(dtype)
    attention = random_image(1, 20, 20)
    before = image.clone(), attention.clone()
    out = AttentionGaussianBlur(1.0, kernel_size=kernel_size)(image, attention)
    out.zero_()
    assert torch.equal(image, before[0])
    assert torch.equal(attention, before[1])


def test_strided_and_gradient_carrying_inputs_work(kernel):
    image, sigma = random_image(20, 40, 3), 2 * random_image(1, 40, 20, seed=1)
    view = image.permute(2, 1, 0).requires_grad_()
    out = spatially_varying_gaussian_blur(view, sigma)
    assert (out - brute_force(view.detach(), sigma)).abs().max() < 1e-6
    assert not out.requires_grad


@pytest.mark.parametrize(
    ("image", "sigma", "kernel_size", "message"),
    [
        ((3, 20, 20), (1, 20, 21), 15, r"sigma must have shape \(1, 20, 20\).*\(1, 20, 21\)"),
        ((2, 3, 20, 20), (1, 20, 20), 15, r"sigma must have shape \(2, 1, 20, 20\)"),
        ((3, 20, 20), (3, 20, 20), 15, "sigma must have shape"),
        ((20, 20), (20, 20), 15, "image must have shape"),
        ((3, 20, 20), (1, 20, 20), 14, "odd integer, got 14"),
        ((3, 20, 20), (1, 20, 20), -1, "odd integer, got -1"),
        ((3, 20, 20), (1, 20, 20), 15.0, "odd integer, got 15.0"),
        ((3, 7, 20), (1, 7, 20), 15, r"must exceed kernel_size // 2 = 7 .* 7 x 20"),
    ],
)
def test_shapes_and_windows_that_do_not_fit_are_named(image, sigma, kernel_size, message):
    with pytest.raises(ValueError, match=message):
        spatially_varying_gaussian_blur(torch.zeros(image), torch.ones(sigma), kernel_size)


def test_the_least_side_that_can_reflect_is_accepted(kernel):
    assert spatially_varying_gaussian_blur(torch.ones(1, 8, 8), torch.ones(1, 8, 8)).shape == (1, 8, 8)


def test_nan_widths_and_whole_number_images_are_refused(kernel):
    sigma = torch.ones(1, 20, 20)
    with pytest.raises(TypeError, match=r"floating or uint8, got torch\.int64"):
        spatially_varying_gaussian_blur(torch.ones(1, 20, 20, dtype=torch.int64), sigma)
    sigma[0, 3, 3] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        spatially_varying_gaussian_blur(torch.ones(1, 20, 20), sigma)


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_the_extra_memory_stays_within_sixteen_images():
    code = (
        "import torch\n"
        "from clinbundles.transforms import blur\n"
        "image, sigma = torch.rand(3, 2048, 2048), 2 * torch.rand(1, 2048, 2048)\n"
        # Not getrusage: its peak survives exec, so it would be that of the process that runs the tests.
        "def memory(field):\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])\n"
        "for fused in (blur._fused_kernel, lambda device_type: None):\n"
        "    blur._fused_kernel = fused\n"
        "    blur.spatially_varying_gaussian_blur(image[:, :32, :32], sigma[:, :32, :32])\n"
        "    before = memory('VmRSS')\n"
        "    blur.spatially_varying_gaussian_blur(image, sigma)\n"
        "    print((memory('VmHWM') - before) / image.nbytes)\n"
    )
    shares = [float(line) for line in run_python(code).split()]
    assert len(shares) == 2
    # The output alone is one image; the peak before the call may hide less than that, never more.
    assert all(0.5 < share < 16 for share in shares), shares


def run_python(code):
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
