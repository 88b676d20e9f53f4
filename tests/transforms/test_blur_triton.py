import os
import subprocess
import sys

import pytest
import torch

from clinbundles.transforms import blur

pytest.importorskip("triton")

COMPARE = """
import torch
from clinbundles.transforms import blur, blur_triton
blur_triton.BLOCK_H, blur_triton.BLOCK_W = 8, 16
torch.manual_seed(0)
for shape, radius, dtype in (((2, 2, 9, 18), 3, torch.float32), ((1, 1, 8, 8), 7, torch.float64)):
    image = torch.rand(shape, dtype=dtype)
    sigma = 2.2 * torch.rand(shape[0], 1, *shape[2:], dtype=dtype) - 0.2
    out = blur_triton.blur_tiles(image, sigma, radius)
    assert out.dtype == dtype
    assert torch.equal(out[(sigma <= 0.01).expand(shape)], image[(sigma <= 0.01).expand(shape)])
    print(float((out - blur._blur_with_torch(image, sigma, radius)).abs().max()))
narrow = torch.full((1, 1, 9, 18), -1.0)
image = torch.rand(1, 2, 9, 18)
assert torch.equal(blur_triton.blur_tiles(image, narrow, 3), image)
"""


def test_the_fused_kernel_equals_the_plain_one_in_tritons_interpreter():
    done = subprocess.run(
        [sys.executable, "-c", COMPARE],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    errors = [float(line) for line in done.stdout.split()]
    assert len(errors) == 2
    assert max(errors) < 1e-6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("shape", [(2, 3, 64, 200), (1, 1, 8, 8), (4, 5, 33, 65)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("widest", [0.5, 2.0, 50.0])
def test_the_fused_kernel_equals_the_plain_one_on_the_gpu(shape, dtype, widest):
    torch.manual_seed(0)
    image = torch.rand(shape, dtype=dtype, device="cuda")
    sigma = widest * torch.rand(shape[0], 1, *shape[2:], dtype=dtype, device="cuda") - 0.05
    fused = blur._fused_kernel("cuda")
    assert fused is not None
    torch.testing.assert_close(fused(image, sigma, 7), blur._blur_with_torch(image, sigma, 7), rtol=0, atol=2e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_tensors_take_the_fused_kernel(monkeypatch):
    def refuse(*_):
        raise AssertionError("the plain kernel ran")

    monkeypatch.setattr(blur, "_blur_with_torch", refuse)
    image = torch.rand(3, 20, 20, device="cuda")
    assert blur.spatially_varying_gaussian_blur(image, torch.ones(1, 20, 20, device="cuda")).is_cuda
