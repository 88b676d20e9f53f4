"""What is read of a file, by the kind of file, for calls in a copy of a process: its shape, or why it was refused."""

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clinbundles.engines.outputs.per_image import read_per_image
from clinbundles.engines.sentences import sentence_of
from clinbundles.engines.weights_card import read_card
from clinbundles.nets.weights import read_weights
from clinbundles.scripts.large_image.opening import open_large_image
from clinbundles.scripts.option_values import check_datalist
from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.prepare import gaze
from clinbundles.transforms.gaze.readers import read_fixations
from clinbundles.transforms.readers import slices
from clinbundles.transforms.readers.chest_xray import ChestXRayReader
from clinbundles.transforms.readers.coco import instances_of, read_coco
from clinbundles.transforms.readers.ct_volume import read_ct
from clinbundles.transforms.readers.images import BinaryMaskReader, RGBImageReader
from clinbundles.transforms.readers.pixel_size import pixel_size_um

CLASSES = ["background", "body", "left lung", "right lung"]


def of_large_image(path: Path) -> Any:
    pixel_size_um(path)
    with open_large_image(path) as image:
        _, height, width = image.shape
        return image.read(0, 0, height=min(height, 64), width=min(width, 64)).shape


def of_slice_reader(path: Path) -> Any:
    reader = slices.SliceReader(window_hu=[-1000, 600])
    return reader.get_data(reader.read(path))[0].shape


def of_zip(path: Path) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return sorted(file.name for file in unzip(path, Path(folder)).rglob("*"))


def of_coco(path: Path) -> Any:
    return [len(instances_of({"label": str(path), "image_id": number}).boxes) for number in read_coco(path).images]


READERS: dict[str, Callable[[Path], Any]] = {
    "photograph": lambda path: RGBImageReader().read(path).shape,
    "deep picture": lambda path: RGBImageReader(intensity_range=(0, 4095)).read(path).shape,
    "mask": lambda path: BinaryMaskReader().read(path).shape,
    "x-ray": lambda path: ChestXRayReader().read(path).shape,
    "slice": of_slice_reader,
    "label map": lambda path: slices.read_label_map(path, CLASSES).shape,
    "CT": lambda path: read_ct(path).values.shape,
    "gaze": lambda path: sorted(read_fixations(path)),
    "table": lambda path: read_per_image(path)[0].shape,
    "datalist": lambda path: len(slices.read_datalist(path)),
    "datalist with gaze": lambda path: len(gaze.read_datalist(path)),
    "any datalist": lambda path: check_datalist(str(path)),
    "COCO list": of_coco,
    "weights": lambda path: len(read_weights(path)),
    "card": lambda path: len(read_card(path.with_suffix(".pt"))),
    "zip": of_zip,
    "large image": of_large_image,
}


def read(kind: str, file: str) -> dict[str, Any]:
    """Read a file: {"shape": ...}, or {"sentence": ...} of what refuses it; None for that where it is no sentence."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    path = Path(file)
    try:
        return {"shape": np.asarray(READERS[kind](path), dtype=object).tolist()}
    except Exception as error:
        chain: list[BaseException] = [error]
        while (before := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(before)
        return {
            "sentence": sentence_of(error),
            "error": f"{type(error).__name__}: {error}",
            "memory": any(isinstance(each, MemoryError) for each in chain),
        }
