"""A network that was exported to ONNX, in the place of the one that it was made of."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from monai.data.meta_tensor import MetaTensor
from torch import nn

from .optional_packages import needed_by


class OnnxNetwork(nn.Module):
    """Run a network from an ONNX file on a CPU, by ONNX Runtime, as one would call the network itself.

    It has no weights of its own: the file is its weights, which :func:`.weights.load_weights` has it read. The file has
    one input and one output, and says which sizes of images it takes.

    Raises:
        ModuleNotFoundError: ONNX Runtime is not installed.
    """

    outputs: tuple[str, ...] = ("pred",)

    def __init__(self) -> None:
        super().__init__()
        with needed_by("a network exported to ONNX"):
            import onnxruntime  # only who exported a network has it

        self.runtime = onnxruntime
        self.session: onnxruntime.InferenceSession | None = None
        self.path = Path()

    def load_file(self, path: str | os.PathLike) -> None:
        """Read the network from an ONNX file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no ONNX file of one input and one output.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; a network exported to ONNX was expected there.")
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        try:
            session = self.runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # bytes that are no such file can raise anything
            raise ValueError(f"{path}: no network that ONNX Runtime {self.runtime.__version__} opens.") from error
        if len(session.get_inputs()) != 1 or len(session.get_outputs()) != len(self.outputs):
            raise ValueError(f"{path}: expected a network of one input, and of {' and '.join(self.outputs)}.")
        self.path, self.session = Path(path), session

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the network returns for images (B, C, *S), on their device; nothing can be learned from it.

        Raises:
            ValueError: as :meth:`run`.
        """
        result = self.run(image)[0].to(image.device)
        return MetaTensor(result).copy_meta_from(image) if isinstance(image, MetaTensor) else result

    def run(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs of the file for images (B, C, *S), on the CPU.

        Raises:
            ValueError: images of another shape than the file takes, autocast to another precision, or no file read yet.
        """
        if self.session is None:
            raise ValueError("the exported network was not read yet; load_weights does so.")
        if torch.is_autocast_enabled(image.device.type):
            raise ValueError(f"{self.path}: computes in float32 alone; leave --precision out.")
        (entry,) = self.session.get_inputs()
        fits = [not isinstance(side, int) or side == here for side, here in zip(entry.shape, image.shape, strict=False)]
        if len(entry.shape) != image.ndim or not all(fits):
            raise ValueError(
                f"{self.path}: was exported for images of {_text(entry.shape[1:])}, this one is "
                f"{_text(image.shape[1:])}; leave out what changes their size, or export again."
            )
        plain = image.as_tensor() if isinstance(image, MetaTensor) else image
        results = self.session.run(None, {entry.name: plain.detach().cpu().contiguous().numpy()})
        return [torch.from_numpy(values) for values in results]


def _text(shape: Iterable[int | str]) -> str:
    return "x".join(map(str, shape))
