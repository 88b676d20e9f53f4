"""Tests of the generator with its interpreter: they belong together, and the same latent gives the same labels."""

import pytest
import torch

from clinbundles.nets.datasetgan.generator import Generator
from clinbundles.nets.datasetgan.labelled_generator import LabelledGenerator, StyleInterpreter, digest_of
from clinbundles.nets.datasetgan.pixel_classifier import PixelClassifierEnsemble


def make(seed: int = 0) -> tuple[Generator, StyleInterpreter]:
    torch.manual_seed(seed)
    generator = Generator(16, 1, 8, 8, channel_base=64, channel_max=8)
    classifier = PixelClassifierEnsemble(generator.feature_channels, 3, n_classifiers=4, widths=[8])
    return generator, StyleInterpreter(classifier).eval()


def test_a_digest_is_of_the_numbers_alone() -> None:
    generator, _ = make()
    assert digest_of(generator) == digest_of(make()[0])
    assert digest_of(generator) != digest_of(make(1)[0])
    half = {name: value.half() for name, value in generator.state_dict().items()}
    rounded = Generator(16, 1, 8, 8, channel_base=64, channel_max=8)
    rounded.load_state_dict(half)
    assert digest_of(rounded) != digest_of(generator)


def test_a_latent_gives_image_labels_uncertainty_and_latents() -> None:
    generator, interpreter = make()
    interpreter.belongs_to(generator)
    z = torch.randn(2, 8)
    made = LabelledGenerator(generator, interpreter, truncation=0.5)(z)
    assert made["image"].shape == (2, 1, 16, 16)
    assert made["label"].shape == (2, 1, 16, 16)
    assert set(made["label"].unique().tolist()) <= {0, 1, 2}
    assert made["uncertainty"].shape == (2,)
    assert (made["uncertainty"] >= 0).all()
    assert torch.allclose(made["ws"], generator.map(z, truncation=0.5))
    again = LabelledGenerator(generator, interpreter, truncation=0.5)(z)
    assert all(torch.equal(made[name], again[name]) for name in made)
    assert made["image"].abs().max() <= 1


def test_an_interpreter_of_another_generator_is_refused() -> None:
    generator, interpreter = make()
    interpreter.belongs_to(generator)
    other, _ = make(1)
    own, strange = digest_of(generator).hex()[:12], digest_of(other).hex()[:12]
    with pytest.raises(ValueError, match=f"trained on the generator {own} and this is the generator {strange}"):
        LabelledGenerator(other, interpreter)(torch.randn(1, 8))


@pytest.mark.parametrize(
    "options",
    [{"truncation": -1}, {"truncation": 7}, {"truncation": None}, {"truncated_layers": 7}, {"truncated_layers": -1}],
)
def test_a_truncation_that_makes_no_sense_is_refused(options: dict) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} is {value}, expected a"):
        LabelledGenerator(make()[0], **options)


def test_the_digest_is_kept_with_the_weights() -> None:
    generator, interpreter = make()
    interpreter.belongs_to(generator)
    copy = make(1)[1]
    copy.load_state_dict(interpreter.state_dict())
    copy.check(generator)


def test_without_an_interpreter_there_are_images_alone() -> None:
    generator, _ = make()
    assert LabelledGenerator(generator)(torch.randn(1, 8)).keys() == {"ws", "image"}
