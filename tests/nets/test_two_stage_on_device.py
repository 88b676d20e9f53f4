"""Two stages on a GPU: no step waits for the device, one graph holds them all; said of fake tensors without a GPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from clinbundles.nets.strided_unet import StridedUNet
from clinbundles.nets.two_stage import TwoStageSegmenter

NARROW = (4, 8, 8, 8, 8)
WAITS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::masked_select"}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"overlap": 0.5, "blend": "gaussian", "patch_batch_size": 3},
    {"conditioned": True, "score": "entropy"},
    {"score_on": "logits"},
    {"n_select": 0},
]
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class NoWaiting(TorchDispatchMode):
    """Refuses every step that has to know a value: on a GPU the host would wait for it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indices = [index for index in args[1] if index is not None] if function._schema.name == "aten::index" else []
        if function._schema.name in WAITS or any(index.dtype == torch.bool for index in indices):
            raise AssertionError(f"{function} makes the host wait for the device")
        return function(*args, **(kwargs or {}))


def two_unets(outputs: int = 1, **options: Any) -> TwoStageSegmenter:
    torch.manual_seed(0)
    inputs = 3 + outputs * int(options.get("conditioned", False))
    low, high = (StridedUNet(channels, outputs, channels=NARROW) for channels in (3, inputs))
    return TwoStageSegmenter(low, high, n_patches=2, **options).eval()


def image_of(*sides: int, device: str = "cpu") -> torch.Tensor:
    return torch.rand((2, 3, *sides), generator=torch.Generator().manual_seed(1)).to(device)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("sides", [(128, 128), (100, 123)])
def test_no_step_waits_for_the_device(options: dict[str, Any], sides: tuple[int, int]) -> None:
    network, image = two_unets(**options), image_of(*sides)
    with torch.no_grad():
        expected = network(image)
        with NoWaiting():
            result = network(image)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(
    "step",
    [
        lambda image: image.max().item(),
        lambda image: bool(image.isfinite().all()),
        lambda image: image[image > 0.5],
        lambda image: torch.nonzero(image),
    ],
)
def test_a_step_that_waits_is_seen(step: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(AssertionError, match="wait"), NoWaiting():
        step(image_of(4, 4))


@pytest.mark.parametrize("options", OPTIONS)
def test_no_step_mixes_the_devices_or_needs_a_value(options: dict[str, Any]) -> None:
    """Fake tensors have shapes and devices and no values."""
    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        result = two_unets(**options)(torch.empty(2, 3, 100, 123))
    assert result.shape == (2, 1, 100, 123)
    assert result.device.type == "cuda"


@pytest.mark.parametrize("options", OPTIONS)
def test_torch_compile_finds_one_graph(options: dict[str, Any]) -> None:
    network, image = two_unets(**options), image_of(100, 128)
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(image), network(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("options", OPTIONS)
def test_channels_last_in_memory_give_the_same(options: dict[str, Any], outputs: int) -> None:
    network, image = two_unets(outputs, **options), image_of(100, 128)
    with torch.no_grad():
        expected = network(image)
        network, image = (each.to(memory_format=torch.channels_last) for each in (network, image))
        torch.testing.assert_close(network(image), expected, atol=1e-4, rtol=1e-4)


def test_a_captured_segmenter_gives_the_same_and_takes_no_other_image() -> None:
    network, image = two_unets(), image_of(128, 128)
    captured = network.capture(image)
    with torch.no_grad():
        torch.testing.assert_close(captured(image.flip(2)), network(image.flip(2)))
    for other in (image[:1], image.double()):
        with pytest.raises(ValueError, match=r"captured for \(2, 3, 128, 128\), torch.float32 on cpu"):
            captured(other)
    with pytest.raises(ValueError, match="another number of windows"):
        two_unets(selector="threshold").capture(image)


@no_gpu
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_cuda_graph_gives_the_same_for_every_image(options: dict[str, Any], precision: str) -> None:
    network, image = two_unets(**options).to("cuda"), image_of(128, 128, device="cuda")
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
        captured = network.capture(image)
        first = captured(image)
        second = captured(image.flip(2))
        torch.testing.assert_close(first, network(image), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(second, network(image.flip(2)), atol=1e-3, rtol=1e-3)
    network.cpu()
    with pytest.raises(ValueError, match="have moved"):
        captured(image)


@no_gpu
@pytest.mark.parametrize("options", OPTIONS)
def test_the_host_never_waits_on_cuda(options: dict[str, Any]) -> None:
    network, image = two_unets(**options).to("cuda"), image_of(128, 128, device="cuda")
    with torch.no_grad():
        network(image)
        torch.cuda.set_sync_debug_mode("error")
        try:
            network(image)
        finally:
            torch.cuda.set_sync_debug_mode("default")
