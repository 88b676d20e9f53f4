"""Print how long covid_xray_transfer takes, as shipped, beside what one would write with torchvision alone.

    clinbundles bench classifier [--rows "JPEG,float32"] [--rounds 5] [--threads 2] [--json FILE]

Two tables: from file to probabilities one image at a time, and training on images in memory. Our side is what the
bundle's own configs make, the other a few lines. Both have the same network, with the same random weights in the same
memory format; the files hold a picture drawn here. Every round runs each contender once, so that a busy machine slows
all of them alike; the tables show medians, and the medians of the rounds' ratios. Decoding, which both sides need, and
the exported network are timed alone, too: together they are what no reader could go below.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json as json_files
import logging
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from monai.bundle import ConfigParser
from PIL import Image
from pydicom.pixels import apply_voi_lut
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from clinbundles.nets.onnx_network import OnnxNetwork
from clinbundles.scripts.bench.measurements import add_measurements, as_metric
from clinbundles.scripts.bench.rounds import describe_machine, ratio, ratios, time_rounds
from clinbundles.scripts.bundle import ROOT, open_configs
from clinbundles.scripts.pack.export import as_onnx, opened, plain

BUNDLE = ROOT / "bundles" / "covid_xray_transfer"
NETWORKS = ("PneumoniaCNN", "resnet50")
PRECISIONS = ("float32", "bfloat16")
TIMED_HANDLERS = "$[h for h in @train::handlers if type(h).__name__ != 'ValidationHandler'] + [@train::phases]"
Metrics = dict[str, dict[str, float]]
SHARES = ("onnx", "calls", "run", "decoding", "floor")  # of plain; pages show the rounds of the first
SIZE = 224


def chest(height: int, width: int) -> np.ndarray:
    """Return a picture (height, width), 0 to 1, with a body, two lungs, ribs and the noise of a detector."""
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    body = np.exp(-((x / 0.9) ** 6) - (y / 1.2) ** 8)
    lungs = sum(np.exp(-((((x - side) / 0.3) ** 2 + ((y + 0.1) / 0.6) ** 2) ** 2)) for side in (-0.42, 0.42))
    picture = 0.8 * body - 0.5 * lungs + 0.05 * body * np.sin(25 * (y - 0.4 * x**2))
    picture += np.random.default_rng(0).normal(0, 0.004, picture.shape)
    return (picture - picture.min()) / np.ptp(picture)


def write_picture(path: Path, *, bits: int, height: int, width: int) -> None:
    """Write the picture as the kind of file that the suffix says."""
    values = np.rint(chest(height, width) * (2**bits - 1))
    Image.fromarray(values.astype(np.uint8 if bits == 8 else np.uint16)).save(path)


def write_dicom(path: Path, *, modality: str, compressed: bool, side: int) -> None:
    """Write the picture as a radiograph of 12 bits with a window."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = (
        ComputedRadiographyImageStorage if modality == "CR" else DigitalXRayImageStorageForPresentation
    )
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = modality, "CHEST", "PA"
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 2048, 4096, "LINEAR"
    values = np.rint(chest(side, side) * 4095).astype(np.uint16)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.set_pixel_data(values, "MONOCHROME2", 12, generate_instance_uid=False)
    if compressed:
        dataset.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)


FILES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "JPEG 320 x 250": ("jpg", partial(write_picture, bits=8, height=250, width=320)),
    "JPEG 1500 x 1200": ("jpg", partial(write_picture, bits=8, height=1200, width=1500)),
    "PNG 1024 x 1024": ("png", partial(write_picture, bits=8, height=1024, width=1024)),
    "PNG 1024 x 1024, 16 bit": ("png", partial(write_picture, bits=16, height=1024, width=1024)),
    "DICOM CR 2000 x 2000": ("dcm", partial(write_dicom, modality="CR", compressed=False, side=2000)),
    "DICOM DX 2000 x 2000, JPEG 2000": ("dcm", partial(write_dicom, modality="DX", compressed=True, side=2000)),
}


def read_plainly(path: Path) -> Image.Image:
    """Read a file as a grey image of 8 bits, the way one would write it for these files and no others."""
    if path.suffix == ".dcm":
        dataset = pydicom.dcmread(path)
        values = apply_voi_lut(dataset.pixel_array, dataset)
        values = (values - values.min()) / (values.max() - values.min())
        return Image.fromarray((255 * values).astype(np.uint8))
    image = Image.open(path)
    if image.mode == "I;16":  # convert("L") would clip it
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("L")


def decode(paths: Sequence[Path]) -> None:
    """Decode the pixels of files and do nothing else, a large JPEG at the smaller size that is enough."""
    for path in paths:
        if path.suffix == ".dcm":
            pydicom.dcmread(path).pixel_array  # noqa: B018  # decodes
        else:
            with Image.open(path) as image:
                image.draft(image.mode, (2 * SIZE, 2 * SIZE))
                image.load()


class Plain:
    """Turn a file into probabilities with torchvision alone."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        self.network = network
        steps = [v2.Resize((SIZE, SIZE), antialias=True), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        steps.append(v2.Lambda(lambda image: image.expand(3, -1, -1)))
        if any(mean):  # PneumoniaCNN takes 0 to 1
            steps.append(v2.Normalize(mean, std))
        self.transform = v2.Compose(steps)

    def image(self, path: Path) -> torch.Tensor:
        """Read a file as the network's input (3, SIZE, SIZE)."""
        return self.transform(read_plainly(path))

    def __call__(self, paths: Sequence[Path]) -> None:
        """Classify all files."""
        with torch.inference_mode():
            for path in paths:
                torch.softmax(self.network(self.image(path)[None]), dim=1)


class Shipped:
    """Turn a file into probabilities with the parts that inference.json makes."""

    def __init__(self, folder: Path, network_name: str, output_dir: Path) -> None:
        options = {"network_name": network_name, "dataset_dir": str(folder), "output_dir": str(output_dir)}
        parser = open_configs(BUNDLE, ["inference"], handlers=["@writer"], device="cpu", batch_size=1, **options)
        parts = ("evaluator", "dataset", "network", "inferer", "postprocessing", "intensity_mean", "intensity_std")
        self.evaluator, self.dataset, self.network, self.inferer, self.postprocessing, self.mean, self.std = map(
            parser.get_parsed_content, parts
        )
        self.network.eval()

    def __call__(self, network: nn.Module | None = None) -> None:
        """Classify all files of the folder without an engine around it, with another network if one is given."""
        with torch.inference_mode():
            for item in self.dataset:
                logits = self.inferer(item["image"][None], network or self.network)
                self.postprocessing({"pred": logits[0]})

    def run(self) -> None:
        """Classify all files by the evaluator."""
        with contextlib.redirect_stdout(io.StringIO()):  # how many files there were
            self.evaluator.run()

    def exported(self) -> nn.Module:
        """Export the network to ONNX."""
        return opened(as_onnx(self.network, plain(self.dataset[0]["image"])[None]), OnnxNetwork())

    @torch.inference_mode()
    def error(self, exported: nn.Module, image: torch.Tensor) -> float:
        """Return the largest error of the exported network's probabilities, relative to those of the network."""
        expected, probabilities = (network(image).softmax(1) for network in (self.network, exported))
        return float(((probabilities - expected).abs() / expected).max())


def print_files(
    rows: Sequence[tuple[str, str]], folder: Path, n_files: int, rounds: int
) -> dict[tuple[str, str], Metrics]:
    """Print the table of (network, kind of file): milliseconds a file, from the file to its probabilities.

    Returns:
        The metrics of each row, as :func:`add_measurements` takes them.
    """
    count = f"{n_files} files ({files_of('DICOM', n_files)} of DICOM)"
    print(f"\nFile to probabilities, batch 1, {count}, {rounds} rounds: milliseconds a file, and shares of plain.")
    print("calls: data set, network and softmax of inference.json; run: its evaluator, with the table of classes;")
    print("onnx: as calls, with the network exported to ONNX; floor: decoding and exported network alone.")
    print("difference: between the two inputs of the network, mean, in grey levels of 255;")
    print("error: of the exported network's probabilities, relative to those of the network.\n")
    print("| network, file | plain, ms | onnx | calls | run | decoding | floor | difference | error |")
    print("|---|---|---|---|---|---|---|---|---|")
    measured = {}
    for network_name, kind in rows:
        metrics = measure_files(network_name, kind, folder, files_of(kind, n_files), rounds)
        measured[network_name, kind] = metrics
        numbers = [f"{metrics['plain_ms']['value']:.1f}"]
        numbers += [f"{metrics[f'{name}_ratio']['value']:.2f}" for name in SHARES]
        numbers += [f"{metrics['difference']['value']:.2f}", f"{metrics['error']['value']:.0e}"]
        print(f"| {network_name}, {kind} | {' | '.join(numbers)} |", flush=True)
    return measured


def measure_files(network_name: str, kind: str, folder: Path, n: int, rounds: int) -> Metrics:
    """Time n files of one kind with one network."""
    files = folder / kind
    if not files.is_dir():
        make_files(kind, files, n)
    torch.manual_seed(0)
    ours = Shipped(files, network_name, folder / "outputs" / network_name / kind)
    torchvision = Plain(ours.network, ours.mean, ours.std)
    paths = sorted(files.iterdir())
    exported = ours.exported()
    image = plain(ours.dataset[0]["image"])[None]
    contenders: dict[str, Callable[[], object]] = {
        "plain": partial(torchvision, paths),
        "calls": ours,
        "run": ours.run,
        "onnx": partial(ours, exported),
        "decoding": partial(decode, paths),
        "network": lambda: [exported(image) for _ in paths],
    }
    seconds = time_rounds(contenders, rounds=rounds)
    seconds["floor"] = [sum(both) for both in zip(seconds["decoding"], seconds["network"], strict=True)]
    metrics = {f"{name}_ratio": as_metric(ratios(seconds[name], seconds["plain"])) for name in SHARES}
    shift = mean_difference(ours, torchvision, paths[0])
    return {
        "plain_ms": as_metric([1e3 * value / n for value in seconds["plain"]]),
        **metrics,
        "difference": {"value": float(f"{shift:.4g}")},
        "error": {"value": float(f"{ours.error(exported, image):.4g}")},
    }


def files_of(kind: str, n_files: int) -> int:
    """Return how many files of a kind are enough: of the large ones fewer, beside which a run's start weighs little."""
    return max(1, n_files // 5) if "DICOM" in kind else n_files


def mean_difference(ours: Shipped, plain: Plain, path: Path) -> float:
    """Return by how many grey levels of 255 the two inputs of the network differ on average."""
    shift = ours.dataset[0]["image"].as_subclass(torch.Tensor) - plain.image(path)
    return float((shift * torch.tensor(ours.std)[:, None, None]).abs().mean() * 255)


def make_files(kind: str, folder: Path, n: int) -> None:
    """Make the folder with n files of a kind, which all hold the same."""
    folder.mkdir()
    suffix, write = FILES[kind]
    write(folder / f"0.{suffix}")
    for i in range(1, n):
        shutil.copy(folder / f"0.{suffix}", folder / f"{i}.{suffix}")


def trainer_of(folder: Path, *, n_images: int, precision: str) -> tuple[Any, ConfigParser]:
    """Return the trainer of train.json for one epoch on images in memory, and its parser."""
    make_files("JPEG 320 x 250", folder, n_images)
    items = [{"image": path.name, "label": i % 3} for i, path in enumerate(sorted(folder.iterdir()))]
    (folder / "datalist.json").write_text(json_files.dumps({"training": items, "validation": items[:1]}))
    parser = open_configs(
        BUNDLE,
        ["train"],
        **{"train::trainer::train_handlers": TIMED_HANDLERS},
        dataset_dir=str(folder),
        device="cpu",
        precision=precision,
        max_epochs=1,
    )
    for part in ("train", "validate"):
        parser[f"{part}::dataset::progress"] = False
    # What TrainingPhases asks of the validation that is left out.
    parser.get_parsed_content("validate::evaluator").state.metrics = {"val_loss": 0.0}
    return parser.get_parsed_content("train::trainer"), parser


def plain_epoch(network: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, *, precision: str) -> None:
    """Train for one epoch."""
    loss_function = nn.CrossEntropyLoss()
    network.train()
    for image, label in loader:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(image)
        loss_function(logits.float(), label).backward()
        optimizer.step()


def print_training(precisions: Sequence[str], folder: Path, n_images: int, rounds: int) -> None:
    """Print the table of precisions: images a second in training."""
    print(f"\nTraining, PneumoniaCNN at {SIZE}, batch 20, {n_images} images in memory, {rounds} rounds. ours:")
    print("train.json without validation and checkpoints.\n")
    print("| precision | plain images/s | ours images/s | ours / plain |\n|---|---|---|---|")
    for precision in precisions:
        trainer, parser = trainer_of(folder / precision, n_images=n_images, precision=precision)
        items = list(trainer.data_loader.dataset)
        data = TensorDataset(torch.stack([i["image"] for i in items]), torch.tensor([i["label"] for i in items]))
        loader = DataLoader(data, batch_size=parser["batch_size"], shuffle=True)
        network = copy.deepcopy(trainer.network)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        epoch = partial(plain_epoch, network, optimizer, loader, precision=precision)
        seconds = time_rounds({"plain": epoch, "ours": trainer.run}, rounds=rounds)
        plain, ours = (n_images / statistics.median(seconds[name]) for name in ("plain", "ours"))
        share = ratio(seconds["plain"], seconds["ours"])
        print(f"| {precision} | {plain:.1f} | {ours:.1f} | {share:.3f} |", flush=True)


def main(
    rows: str | Sequence[str] = "",
    rounds: int = 5,
    n_files: int = 20,
    n_images: int = 100,
    threads: int = 2,
    json: str | None = None,
) -> None:
    """Print both tables, or the rows with one of the words of ``rows``, such as "resnet50" or "JPEG,bfloat16".

    Args:
        rows: words of the names of rows.
        rounds: how often each contender is timed.
        n_files: files a row, a fifth as many of DICOM.
        n_images: images of the trainings.
        threads: of the CPU.
        json: file that the rows of files are added to, for clinbundles report --merge.
    """
    given = rows if isinstance(rows, list | tuple) else str(rows).split(",")  # Fire parses what it takes for Python
    words = [str(word).strip().lower() for word in given]
    torch.set_num_threads(threads)
    logging.disable(logging.INFO)
    files = [(net, kind) for net in NETWORKS for kind in FILES if any(w in f"{net}, {kind}".lower() for w in words)]
    precisions = [name for name in PRECISIONS if any(word in f"training, {name}" for word in words)]
    if not files and not precisions:
        raise ValueError(f"rows is {rows!r}: no row has such a word in its name.")
    print(describe_machine(threads, ["torchvision", "pillow", "pydicom", "pylibjpeg-openjpeg", "onnxruntime"]))
    with tempfile.TemporaryDirectory() as folder:
        measured = print_files(files, Path(folder), n_files, rounds) if files else {}
        if precisions:
            print_training(precisions, Path(folder), n_images, rounds)
    logging.disable(logging.NOTSET)
    for (network_name, kind), metrics in measured.items() if json else ():
        add_measurements(
            str(json),
            BUNDLE.name,
            f"file to probabilities, {network_name}, {kind}",
            {kind: metrics},
            device="cpu",
            threads=threads,
            scale=f"batch 1, {files_of(kind, n_files)} files, {rounds} rounds",
            data="a picture drawn by the bench",
        )
