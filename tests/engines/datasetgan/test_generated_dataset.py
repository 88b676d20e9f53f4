"""Tests of slices made on the fly: those of their seeds, in the shape of slices from files."""

import pytest
import torch
from monai.data import DataLoader

from clinbundles.engines.datasetgan.generated_dataset import GeneratedDataset
from clinbundles.nets.datasetgan.generator import Generator
from clinbundles.nets.datasetgan.labelled_generator import LabelledGenerator, StyleInterpreter
from clinbundles.nets.datasetgan.pixel_classifier import PixelClassifierEnsemble
from clinbundles.transforms.latents import latent_of


@pytest.fixture
def network() -> LabelledGenerator:
    torch.manual_seed(0)
    generator = Generator(8, 1, 4, 4, channel_base=32, channel_max=4)
    interpreter = StyleInterpreter(PixelClassifierEnsemble(generator.feature_channels, 2, n_classifiers=2, widths=[4]))
    interpreter.belongs_to(generator)
    return LabelledGenerator(generator, interpreter)


def test_an_item_is_the_slice_of_its_seed_whatever_was_asked_for_before(network: LabelledGenerator) -> None:
    data = GeneratedDataset(network, 3, first_seed=7)
    first = data[1]
    assert first["seed"] == 8
    assert (first["image"].shape, first["label"].shape) == ((1, 8, 8, 1), (1, 8, 8, 1))
    with torch.no_grad():
        made = network(latent_of(8, 4)[None])
    assert torch.equal(first["image"][..., 0], made["image"][0])
    assert torch.equal(first["label"][..., 0], made["label"][0])
    assert data[2]["seed"] == 9
    assert torch.equal(data[1]["image"], first["image"])
    assert not network.training


def test_a_loader_and_a_transform_take_it(network: LabelledGenerator) -> None:
    data = GeneratedDataset(network, 4, transform=lambda item: {**item, "image": -item["image"]})
    batch = next(iter(DataLoader(data, batch_size=4)))
    assert batch["image"].shape == (4, 1, 8, 8, 1)
    assert torch.equal(batch["image"][2], -GeneratedDataset(network, 4)[2]["image"])


def test_a_generator_without_an_interpreter_and_an_empty_set_are_refused(network: LabelledGenerator) -> None:
    with pytest.raises(ValueError, match="expected a generator with an interpreter and a length of 1 or more, got 0"):
        GeneratedDataset(network, 0)
    with pytest.raises(ValueError, match="expected a generator with an interpreter"):
        GeneratedDataset(LabelledGenerator(network.generator), 2)
