"""Tests of the interpreter's training data: checks of the label maps, every pixel once an epoch, and that it learns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clinbundles.engines.datasetgan.interpreter_training import (
    LabelledFeatures,
    PixelBatches,
    PixelNetwork,
)
from clinbundles.nets.datasetgan.generator import Generator
from clinbundles.nets.datasetgan.labelled_generator import LabelledGenerator, StyleInterpreter, digest_of
from clinbundles.nets.datasetgan.pixel_classifier import EnsembleCrossEntropyLoss, PixelClassifierEnsemble

NAMES = ["background", "bright"]


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(16, 1, 8, 8, channel_base=64, channel_max=8).eval()


@pytest.fixture
def folder(tmp_path: Path, generator: Generator) -> Path:
    """Four generated images; labelled is what is brighter than the median of its image."""
    ws = generator.map(torch.randn(4, 8))
    np.save(tmp_path / "latents.npy", ws.detach().numpy())
    images = generator.synthesize(ws, noise="const").detach()
    bright = images > images.flatten(1).median(dim=1).values[:, None, None, None]
    (tmp_path / "labels").mkdir()
    items = []
    for k, mask in enumerate(bright[:, 0].numpy()):
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "labels" / f"{k}.png")
        items.append({"image": f"images/{k}.png", "label": f"labels/{k}.png", "latent": k})
    labels = {str(k): name for k, name in enumerate(NAMES)}
    facts = {"labels": labels, "labeller": "a test", "generator_sha256": digest_of(generator).hex()}
    (tmp_path / "datalist.json").write_text(json.dumps({**facts, "training": items}))
    return tmp_path


def read(folder: Path, generator: Generator, **options: Any) -> LabelledFeatures:
    return LabelledFeatures(folder, folder / "datalist.json", generator, NAMES, **options)


def test_features_are_those_of_the_latents_and_the_labeller_is_said(
    folder: Path, generator: Generator, capsys: pytest.CaptureFixture
) -> None:
    labelled = read(folder, generator)
    assert "4 images labelled by a test: 1024 pixels, background 50.0%, bright 50.0%" in capsys.readouterr().out
    with torch.no_grad():
        expected = generator.synthesis_features(labelled.ws)[1]
    assert all(torch.equal(a, b) for a, b in zip(labelled.features, expected, strict=True))
    assert len(read(folder, generator, limit=2).labels) == 2


def test_every_pixel_comes_once_an_epoch_with_its_label(folder: Path, generator: Generator) -> None:
    labelled = read(folder, generator)
    batches = PixelBatches(labelled, 100)
    epoch = [batches[k] for k in range(len(batches))]
    places = torch.cat([batch["image"] for batch in epoch])
    assert len(batches) == 10
    assert len(places.unique(dim=0)) == 1000
    image, pixel = places.T
    assert torch.equal(torch.cat([batch["label"] for batch in epoch]), labelled.labels.flatten(1)[image, pixel].long())
    assert not torch.equal(batches[0]["image"], epoch[0]["image"])
    with pytest.raises(ValueError, match="batch_size is 2000, expected 2 to 1024"):
        PixelBatches(labelled, 2000)


def test_it_learns_the_labels_and_keeps_whose_features_they_are(folder: Path, generator: Generator) -> None:
    labelled = read(folder, generator)
    interpreter = StyleInterpreter(PixelClassifierEnsemble(generator.feature_channels, 2, n_classifiers=3, widths=[16]))
    network = PixelNetwork(interpreter, labelled, generator)
    assert bytes(interpreter.generator_digest.tolist()) == digest_of(generator)
    optimizer = torch.optim.Adam(interpreter.parameters(), lr=0.01)
    batches = PixelBatches(labelled, 256)
    for _ in range(40):
        for k in range(len(batches)):
            batch = batches[k]
            optimizer.zero_grad()
            EnsembleCrossEntropyLoss()(network(batch["image"]), batch["label"]).backward()
            optimizer.step()
    interpreter.eval()
    with torch.no_grad():
        predicted = LabelledGenerator(generator, interpreter).label(labelled.ws)["label"][:, 0]
    assert (predicted == labelled.labels).float().mean() > 0.95


def drop_label(folder: Path) -> None:
    (folder / "labels" / "2.png").unlink()


def shrink_label(folder: Path) -> None:
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(folder / "labels" / "2.png")


def mark_white(folder: Path) -> None:
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(folder / "labels" / "2.png")


def rename_class(folder: Path) -> None:
    path = folder / "datalist.json"
    path.write_text(path.read_text().replace('"bright"', '"nucleus"'))


def unlabel(folder: Path) -> None:
    path = folder / "datalist.json"
    path.write_text(path.read_text().replace('"label": "labels/2.png", ', ""))


def forget_the_generator(folder: Path) -> None:
    path = folder / "datalist.json"
    path.write_text(path.read_text().replace("generator_sha256", "sha"))


def widen_window(folder: Path) -> None:
    path = folder / "datalist.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"window_hu": [-160, 240]}))


def lose_latents(folder: Path) -> None:
    (folder / "latents.npy").unlink()


def cut_latents(folder: Path) -> None:
    (folder / "latents.npy").write_bytes((folder / "latents.npy").read_bytes()[:300])


def drop_latents(folder: Path) -> None:
    np.save(folder / "latents.npy", np.load(folder / "latents.npy")[:2])


def spoil_latents(folder: Path) -> None:
    latents = np.load(folder / "latents.npy")
    latents[3, 0, 0] = np.nan
    np.save(folder / "latents.npy", latents)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (drop_label, FileNotFoundError, "2.png"),
        (shrink_label, ValueError, r"2.png: is 16x8 px, its image 16x16"),
        (mark_white, ValueError, r"2.png: holds the value 255, and there are 2 classes"),
        (rename_class, ValueError, "its classes are background, nucleus, those of the network background, bright"),
        (unlabel, ValueError, "images/2.png: has no label map; clinbundles label-slices writes them"),
        (forget_the_generator, ValueError, r"datalist.json: does not say which generator"),
        (widen_window, ValueError, r"its slices have the window \[-160, 240\] HU"),
        (lose_latents, FileNotFoundError, r"latents.npy: no such file"),
        (cut_latents, ValueError, r"latents.npy: does not hold the latents of the list"),
        (drop_latents, ValueError, r"latents.npy: does not hold the latents of the list \(index 2 is out of bounds"),
        (spoil_latents, ValueError, r"latents.npy: latents of shape \(4, 6, 8\), expected finite ones"),
    ],
)
def test_label_maps_and_latents_that_do_not_fit_are_refused_by_name(
    folder: Path, generator: Generator, spoil: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    spoil(folder)
    with pytest.raises(error, match=message):
        read(folder, generator, window_hu=(-1000, 600))


def test_empty_label_maps_are_counted_and_an_empty_split_is_refused(
    folder: Path, generator: Generator, capsys: pytest.CaptureFixture
) -> None:
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(folder / "labels" / "1.png")
    read(folder, generator)
    assert "1 of 4 label maps hold background alone, the first is 1.png" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there is no item to learn from in its split 'validation'"):
        read(folder, generator, split="validation")
    for limit in (5, -1, 2.5):
        with pytest.raises(ValueError, match=f"n_labelled is {limit}, and .* has 4 items in its split 'training'"):
            read(folder, generator, limit=limit)
