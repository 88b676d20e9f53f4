"""A generator with the interpreter that labels what it makes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import nn

from .generator import Generator
from .pixel_classifier import PixelClassifierEnsemble, image_uncertainty, jensen_shannon, vote

DIGEST_BYTES = 32


def digest_of(network: nn.Module) -> bytes:
    """SHA-256 of a network's weights and buffers: the same for the same numbers, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.digest()


class StyleInterpreter(nn.Module):
    """Classify each pixel of a generated image by the features that it was made from (Zhang et al. 2021, DatasetGAN).

    An ensemble of pixel classifiers, and the digest of the generator whose features it has learned: those of another
    generator mean nothing to it.

    Args:
        classifier: the ensemble.
    """

    generator_digest: torch.Tensor

    def __init__(self, classifier: PixelClassifierEnsemble) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("generator_digest", torch.zeros(DIGEST_BYTES, dtype=torch.uint8))

    def belongs_to(self, generator: Generator) -> None:
        """Keep the digest of a generator, whose features are learned next."""
        self.generator_digest.copy_(torch.tensor(list(digest_of(generator)), dtype=torch.uint8))

    def check(self, generator: Generator) -> None:
        """Refuse another generator than the one learned from.

        Raises:
            ValueError: the digests differ; the message names both.
        """
        own, other = bytes(self.generator_digest.tolist()).hex()[:12], digest_of(generator).hex()[:12]
        if own != other:
            raise ValueError(
                f"the interpreter was trained on the generator {own} and this is the generator {other}: give the "
                "generator_weights that it was trained with, or train an interpreter for these."
            )


class LabelledGenerator(nn.Module):
    """Make an image, its label map and how uncertain that is, from a latent z.

    Args:
        generator: makes images and features.
        interpreter: labels them; None makes images alone, such as those to label by hand.
        truncation: factor on the distance of w from its mean; below 1 for images that are more alike and cleaner.
        truncated_layers: number of first layers that truncation acts on; None for all.

    Raises:
        ValueError: truncation is not of 0 to 2, or there are fewer layers.
    """

    def __init__(
        self,
        generator: Generator,
        interpreter: StyleInterpreter | None = None,
        *,
        truncation: float = 0.7,
        truncated_layers: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(truncation, int | float) or not 0 <= truncation <= 2:
            raise ValueError(f"truncation is {truncation}, expected a number from 0 to 2, such as 0.7.")
        layers = truncated_layers
        if layers is not None and not (isinstance(layers, int) and 0 <= layers <= generator.n_ws):
            raise ValueError(f"truncated_layers is {layers}, expected a whole number from 0 to {generator.n_ws}.")
        self.generator = generator
        self.interpreter = interpreter
        self.truncation = truncation
        self.truncated_layers = truncated_layers
        self._checked = False

    def forward(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """Make a labelled image for each latent, without random noise: the same latent gives the same image.

        Args:
            z: (N, z_dim).

        Returns:
            ``image`` (N, C, H, W) of [-1, 1], ``ws`` (N, n_ws, w_dim); with an interpreter ``label`` (N, 1, H, W) of
            classes, and ``uncertainty`` (N,), the mean Jensen-Shannon divergence of the tenth of the pixels where it
            is largest, in nats.

        Raises:
            ValueError: the interpreter was trained on another generator.
        """
        ws = self.generator.map(z, truncation=self.truncation, truncated_layers=self.truncated_layers)
        return {"ws": ws, **self.label(ws)}

    def label(self, ws: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Make a labelled image for each ws (N, n_ws, w_dim), as :meth:`forward` does."""
        image, features = self.generator.synthesis_features(ws, noise="const")
        result = {"image": image.clamp(-1, 1)}
        if self.interpreter is not None:
            if not self._checked:
                self.interpreter.check(self.generator)
                self._checked = True
            probabilities = self.interpreter.classifier(features)
            result["label"] = vote(probabilities)[:, None]
            result["uncertainty"] = image_uncertainty(jensen_shannon(probabilities))
        return result
