"""A bundle's own inference on the files of a series: its reader, its checks, its transforms, its writers.

The SDK of MONAI Deploy is not needed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from clinbundles.engines.metrics.instances import detections_of
from clinbundles.engines.sentences import sentence_of
from clinbundles.scripts.bundle import find_bundle, open_configs, options_for, run_configs
from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.pack.pure import check_is_full
from clinbundles.transforms.readers.loading import FAILURE, WARNING

from .fingerprint import digest_of_bundle, note_of, options_by_content, weights_of

CLASSES, SEGMENTS, INSTANCES = "classes", "segments", "instances"


@dataclass(frozen=True)
class Bundle:
    """A bundle that is ready to run.

    Attributes:
        folder: of the bundle, unzipped.
        metadata: of the bundle.
        digest: SHA-256 of its weights, configs and code.
        weights_note: SHA-256 of the weights, and what they must not be used for.
    """

    folder: Path
    metadata: dict[str, Any]
    digest: str
    weights_note: str = ""

    def told_apart_by(self, *what: Any) -> Bundle:
        """Give the bundle another digest, for results that differ by more than its weights, configs and code."""
        return replace(self, digest=hashlib.sha256(repr((self.digest, *what)).encode()).hexdigest())

    def with_options(self, options: Mapping[str, Any], *what: Any) -> Bundle:
        """Give the bundle another digest for other options, those that name a file by its content, and ``what``.

        Raises:
            FileNotFoundError: there are no such weights.
        """
        weights = weights_of(self.folder, options)
        note = note_of(weights)
        return replace(self.told_apart_by(note, list(options_by_content(options)), *what), weights_note=note)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def version(self) -> str:
        """Version of the bundle."""
        return str(self.metadata["version"])

    @property
    def output_kind(self) -> str:
        """Kind of the output: classes, segments or instances."""
        output = self.metadata["network_data_format"]["outputs"]["pred"]
        if output["type"] == "probabilities":
            return CLASSES
        return INSTANCES if output["format"] == "instances" else SEGMENTS

    @property
    def has_background(self) -> bool:
        """Tell whether the output is a label map, whose class 0 is the background."""
        output = self.metadata["network_data_format"]["outputs"]["pred"]
        return self.output_kind == SEGMENTS and len(output["channel_def"]) > 1

    @property
    def labels(self) -> dict[int, str]:
        """Names of the classes by their index, or of segments by their value in a label map, without background."""
        channels = self.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        names = {int(number): str(name) for number, name in channels.items()}
        if self.output_kind == CLASSES:
            return names
        if self.output_kind == INSTANCES:
            return {1: "nucleus" if "nuclei" in self.metadata["task"] else "cell"}
        # One channel is a sigmoid, whose mask is 1.
        return {1: names[0]} if len(names) == 1 else {number: name for number, name in names.items() if number}


@dataclass(frozen=True)
class Prediction:
    """What a bundle says of one image or volume.

    Attributes:
        source: the file, or the folder of a volume.
        probabilities: (classes,), of a classification.
        labels: whole numbers (H, W), or of a volume (x, y, z) with the axes of ``affine``.
        affine: (4, 4) from the axes of a volume to mm towards right, anterior, superior.
        scores: of each cell by its number.
        overlay: picture that the bundle drew, if it did.
        warning: what the reader says of an image that it read.
    """

    source: Path
    probabilities: np.ndarray | None = None
    labels: np.ndarray | None = None
    affine: np.ndarray | None = None
    scores: dict[int, float] = field(default_factory=dict)
    overlay: Path | None = None
    warning: str = ""


@contextlib.contextmanager
def opened(source: str) -> Iterator[Bundle]:
    """Open a packed zip, a folder or a bundle by its name; a zip is unzipped to a folder that goes at the end.

    Raises:
        FileNotFoundError, ValueError: there is no such bundle, or the zip is none.
    """
    with TemporaryDirectory() as scratch:
        if Path(source).suffix == ".zip":
            if not Path(source).is_file():
                raise FileNotFoundError(f"{source}: no such file.")
            folder = unzip(Path(source), Path(scratch))
        else:
            folder = find_bundle(source)
        check_is_full(folder, source)
        for name in ("models/model.pt", "configs/inference.json", "configs/metadata.json"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{source}: has no {name}, so it is no bundle that can be run.")
        metadata = json.loads((folder / "configs" / "metadata.json").read_bytes())
        yield Bundle(folder, metadata, digest_of_bundle(folder), note_of(folder / "models" / "model.pt"))


def infer(bundle: Bundle, sources: Sequence[Path], work: Path, **options: Any) -> tuple[list[Prediction], float]:
    """Run a bundle's inference on files, or on the folder of a volume, as ``clinbundles run`` does.

    The evaluator of its inference.json runs with its own data set, so nothing is left out that the network rests on:
    the bundle's reader reads the files, and refuses what it would refuse. Pictures that it draws on request are drawn,
    unless the options say no.

    Args:
        bundle: the bundle.
        sources: the files, or one folder.
        work: folder for what the bundle writes: masks, overlays, tables.
        options: values of the config.

    Returns:
        predictions, of each source one, and the seconds that the evaluator ran.

    Raises:
        ValueError: one could not be read.
    """
    predictions: list[Prediction] = []
    with _quietly(bundle):
        drawn = options_for(bundle.folder, ["inference"], {"overlays": True})
        parser = open_configs(bundle.folder, ["inference"], output_dir=str(work), **(drawn | options))
        parser["dataset"]["data"] = [{"image": str(source)} for source in sources]
        parser.parse(True)
        parser.get_parsed_content("initialize")
        evaluator = parser.get_parsed_content("evaluator")
        network = parser.get_parsed_content("network")

        def collect(engine: Engine) -> None:
            batch: Any = engine.state.batch
            output: Any = engine.state.output
            found = getattr(network, "detections", [None] * len(batch))
            for entries, results, detection in zip(batch, output, found, strict=True):
                item = {**entries, **results}
                if item.get(FAILURE):
                    raise ValueError(item[FAILURE])
                predictions.append(_prediction(bundle, sources[len(predictions)], item, detection))

        evaluator.add_event_handler(Events.ITERATION_COMPLETED, collect)
        began = time.perf_counter()
        evaluator.run()
        seconds = time.perf_counter() - began
    return [_with_overlay(each, work) for each in predictions], seconds


def run_inference(bundle: Bundle, folder: Path, output: Path, **options: Any) -> None:
    """Run a bundle's inference on the images of a folder, as ``clinbundles run`` does.

    Args:
        bundle: the bundle.
        folder: of images.
        output: folder for what the bundle writes.
        options: values of the config.

    Raises:
        ValueError: none could be read.
    """
    with _quietly(bundle):
        run_configs(bundle.folder, ["inference"], dataset_dir=str(folder), output_dir=str(output), **options)


@contextlib.contextmanager
def _quietly(bundle: Bundle) -> Iterator[None]:
    """Let a bundle's own code run, without what it prints and with its errors as sentences."""
    if str(bundle.folder) not in sys.path:
        sys.path.insert(0, str(bundle.folder))
    text = io.StringIO()
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # it would name scratch folders
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            yield
    except Exception as error:
        raise ValueError(sentence_of(error) or f"{bundle.name}: {type(error).__name__}: {error}") from error
    finally:
        logging.disable(before)


def _prediction(bundle: Bundle, source: Path, item: dict[str, Any], detection: Any) -> Prediction:
    pred = item["pred"].detach().cpu()
    warning = str(item.get(WARNING) or "")
    if bundle.output_kind == CLASSES:
        return Prediction(source, probabilities=np.asarray(pred.float()), warning=warning)
    labels = np.asarray(pred)[0].astype(np.int64)
    if bundle.output_kind == INSTANCES:
        return Prediction(source, labels=labels, scores=detections_of(labels, detection)[0], warning=warning)
    affine = np.asarray(pred.affine) if isinstance(pred, MetaTensor) and labels.ndim == 3 else None
    return Prediction(source, labels=labels, affine=affine, warning=warning)


def _with_overlay(prediction: Prediction, work: Path) -> Prediction:
    overlay = work / "overlays" / f"{prediction.source.stem}.png"
    return replace(prediction, overlay=overlay if overlay.is_file() else None)
