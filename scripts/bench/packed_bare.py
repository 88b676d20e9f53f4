"""A file to a result by a network of a bundle, as bare as Python has it: what a cold start is compared with.

python packed_bare.py FOLDER IMAGE RESULT

Run as a script in a process of its own, without this project: MONAI's parser makes the network that inference.json
describes, ignite loads its weights, Pillow reads the image. No check, no transform but the size, one array as result.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from ignite.handlers import Checkpoint
from monai.bundle import ConfigParser
from PIL import Image


def main(folder: Path, image: Path, result: Path) -> None:
    """Write the network's output for an image as a numpy file.

    Args:
        folder: of an unpacked bundle.
        image: file that Pillow reads, of 8 bits.
        result: file to write.
    """
    sys.path.insert(0, str(folder))
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser.read_meta(folder / "configs" / "metadata.json")
    parser["bundle_root"] = str(folder)
    network = parser.get_parsed_content("network_def").eval()
    Checkpoint.load_objects({"network": network}, checkpoint=folder / "models" / "model.pt")
    size = parser["image_size"]
    channels = parser["_meta_::network_data_format::inputs::image::num_channels"]
    picture = Image.open(image).convert("RGB" if channels == 3 else "L")
    if size is not None:
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32) / 255).reshape(*picture.size[::-1], channels)

    def step(_: Engine, batch: torch.Tensor) -> Any:
        with torch.inference_mode():
            return network(batch)

    engine = Engine(step)
    engine.run([pixels.permute(2, 0, 1)[None]])
    output: Any = engine.state.output
    output = output[0] if isinstance(output, (list, tuple)) else output
    output = next(iter(output.values())) if isinstance(output, dict) else output
    np.save(result, output.numpy())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
