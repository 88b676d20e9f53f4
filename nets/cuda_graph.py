"""One CUDA graph for images of one shape, where launching the kernels one by one takes longer than they do."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import nn


class CapturedNetwork:
    """Run a network on images of one shape: on a GPU by replaying a CUDA graph, on a CPU by calling it.

    No gradients, and the autocast under which it was made. The graph reads the weights where they lay then: new values
    loaded into them count, and weights that have moved are refused. The memory of one run stays taken.

    Args:
        network: maps an image (B, C, *S) to a tensor, and never makes the host wait for the device.
        image: an image such as those to come, with the same shape, type and device.

    Raises:
        ValueError: in a call, an image of another shape, type or device, or weights that have moved since.
    """

    def __init__(self, network: nn.Module, image: torch.Tensor) -> None:
        device = image.device.type
        self.network = network
        self._autocast: dict[str, Any] = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
            "cache_enabled": False,  # weights cast before the recording would be freed while the graph reads them
        }
        self._addresses = self._read_addresses()
        self._image = self._result = torch.empty_like(image)
        self._graph: torch.cuda.CUDAGraph | None = None
        if image.is_cuda:
            self._record(image)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the network makes of an image (B, C, *S)."""
        kinds = [f"{tuple(each.shape)}, {each.dtype} on {each.device}" for each in (image, self._image)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"image of {kinds[0]}: this network was captured for {kinds[1]}.")
        if self._addresses != self._read_addresses():
            raise ValueError("the weights of the network have moved since it was captured: capture it again.")
        if self._graph is None:
            with torch.no_grad(), torch.autocast(**self._autocast):
                return self.network(image)
        self._image.copy_(image)
        self._graph.replay()
        return self._result.clone()

    def _read_addresses(self) -> list[int]:
        return [tensor.data_ptr() for tensor in chain(self.network.parameters(), self.network.buffers())]

    def _record(self, image: torch.Tensor) -> None:
        """Run a few times, as libraries choose their kernels in the first runs, and then record one run."""
        with (
            torch.cuda.device(image.device),
            torch.inference_mode(False),  # else the image could not be overwritten outside of inference mode
            torch.no_grad(),
            torch.autocast(**self._autocast),
        ):
            self._image = torch.empty_like(image).copy_(image)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.network(self._image)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._result = self.network(self._image)
