"""The benches of what should be fast on a GPU, one after the other: blur, two stages, training."""

from __future__ import annotations

from typing import Any

from . import blur, training, two_stage


def main(*, device: str = "cpu", threads: int = 2, json: str | None = None) -> None:
    """Time blur, two stages and training beside what one would use instead, and add all rows to one file.

    On CUDA the sizes are those of such a GPU, with a training of the UNet of 7.8 million parameters at 512 x 512.

    Args:
        device: cpu or cuda.
        threads: of a CPU.
        json: file that the rows are added to, for clinbundles report --merge.
    """
    blur.main(device=device, threads=threads, json=json)
    two_stage.main(device=device, threads=threads, json=json, **({} if _is_gpu(device) else CPU_TWO_STAGE))
    training.main(device=device, threads=threads, json=json, **(GPU_TRAINING if _is_gpu(device) else {}))


CPU_TWO_STAGE: dict[str, Any] = {"sizes": "768", "precisions": "float32"}
GPU_TRAINING: dict[str, Any] = {"size": 512, "batch": 32, "steps": 8, "precision": "bfloat16", "workers": 6}


def _is_gpu(device: str) -> bool:
    return device.startswith("cuda")
