import os
import subprocess
import sys

import pytest
import torch

from clinbundles.transforms import blur

pytest.importorskip("triton")

from clinbundles.transforms import blur_triton

# Widths that are no multiple of four, rows shorter than a tile, every type of pixel, NaN beside the image's own margin.
COMPARE = """
import torch
from clinbundles.transforms import blur, blur_triton
blur_triton.BLOCK_H, blur_triton.BLOCK_W = 2, 16
torch.manual_seed(0)
cases = [((2, 2, 9, 18), 3, torch.float32), ((1, 1, 8, 8), 7, torch.float64), ((1, 1, 6, 21), 2, torch.bfloat16),
         ((1, 2, 10, 37), 5, torch.float16), ((1, 1, 3, 3), 0, torch.float32), ((1, 1, 9, 9), 4, torch.uint8)]
for shape, radius, dtype in cases:
    work = torch.float64 if dtype == torch.float64 else torch.float32
    image = (200 * torch.rand(shape)).to(dtype)
    sigma = 2.2 * torch.rand(shape[0], 1, *shape[2:], dtype=work) - 0.2
    out = blur_triton.blur_tiles(image, sigma, radius)
    assert out.dtype == dtype
    assert torch.equal(out[(sigma <= 0.01).expand(shape)], image[(sigma <= 0.01).expand(shape)])
    plain = blur._blur_with_torch(image.to(work), sigma, radius)
    if dtype in (torch.uint8, torch.float16, torch.bfloat16):
        plain = plain.round() if dtype == torch.uint8 else plain.to(dtype)
        print(float((out.float() - plain.float()).abs().max()) / (1 if dtype == torch.uint8 else 2e5))
    else:
        print(float((out - plain).abs().max()) / 200)
narrow = torch.full((1, 1, 9, 18), -1.0)
image = torch.rand(1, 2, 9, 18)
assert torch.equal(blur_triton.blur_tiles(image, narrow, 3), image)
narrow[0, 0, 2, 5] = torch.nan
out = blur_triton.blur_tiles(image, narrow, 3)
assert out.isnan().sum() == 2 and out[0, :, 2, 5].isnan().all()
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
    assert len(errors) == 6
    assert max(errors) <= 5e-6  # one step of a 16-bit type at 200


@pytest.mark.parametrize(("dtype", "read"), [("fp32", "v4.b32"), ("bf16", "v2.b32"), ("u8", "b32")])
def test_the_kernel_for_a_gpu_reads_four_pixels_at_once_and_keeps_them_in_registers(dtype, read):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    names = blur_triton._tile.arg_names
    pointers = {"lines": f"*{dtype}", "sigma": "*fp32", "out": f"*{dtype}"}
    signature = {name: pointers.get(name, "constexpr" if name.isupper() else "i32") for name in names}
    constants = {"RADIUS": 7, "SIDE": 2, "ROUND": False, "BLOCK_H": 4, "QUADS": 32}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in (*pointers, "width", "pitch")}
    source = ASTSource(
        blur_triton._tile, signature, {(names.index(k),): value for k, value in constants.items()}, aligned
    )
    built = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "enable_fp_fusion": True})
    loads = [line for line in built.asm["ptx"].splitlines() if "ld.global" in line]
    assert len(loads) == 17  # sigma, the centre, five of the middle row, five of each of two mirrored rows
    assert sum(f"ld.global.{read}" in line for line in loads) >= 16
    assert "convert_layout" not in built.asm["ttgir"]  # nothing goes through shared memory
    assert "ld.local" not in built.asm["ptx"]


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8])
def test_the_fused_kernel_reads_small_types_on_the_gpu(dtype):
    torch.manual_seed(0)
    image = (200 * torch.rand(2, 3, 33, 65, device="cuda")).to(dtype)
    sigma = 2 * torch.rand(2, 1, 33, 65, device="cuda")
    plain = blur._blur_with_torch(image.float(), sigma, 7)
    tolerance = 1.01 if dtype in (torch.uint8, torch.bfloat16) else 0.13  # one step of the type at 200
    assert float((blur_triton.blur_tiles(image, sigma, 7).float() - plain).abs().max()) <= tolerance


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_the_gpu_nothing_waits_and_what_would_be_refused_becomes_nan():
    image, attention = torch.rand(1, 3, 32, 40, device="cuda"), torch.rand(1, 1, 32, 40, device="cuda")
    attention[0, 0, 4, 5], attention[0, 0, 6, 7] = 1.5, torch.nan
    transform = blur.AttentionGaussianBlur(0.5)
    transform(image, attention)
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = transform(image, attention)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert out.isnan().nonzero()[:, 2:].unique(dim=0).tolist() == [[4, 5], [6, 7]]
