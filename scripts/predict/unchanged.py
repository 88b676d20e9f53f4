"""Whether a packed bundle is what it was packed as: the whole zip, and its weights."""

from __future__ import annotations

from pathlib import Path

from clinbundles.scripts.doctor.checks import FAULT, read_json, weights_of
from clinbundles.scripts.doctor.run import check_checksum

from .hashes import hash_file


def check_zip(path: Path) -> None:
    """Refuse a zip that is not the one whose checksum model_info.json beside it has; without that file all pass.

    Raises:
        ValueError: it was changed, or model_info.json cannot be read.
    """
    for finding in check_checksum(path):
        if finding.status == FAULT:
            raise ValueError(f"{path.parent / 'model_info.json'}: {finding.sentence}")


def check_weights(folder: Path) -> None:
    """Refuse a bundle whose weights are not those of their card, which says what is computed with them and how.

    Args:
        folder: of an unzipped bundle; without a card all pass.

    Raises:
        ValueError: they have another sha256 than the card has, or the card cannot be read.
    """
    card, weights = folder / "models" / "model.json", weights_of(folder)
    if not (card.is_file() and weights.is_file()):
        return
    digest, told = hash_file(weights), str(read_json(card).get("weights_sha256"))
    if digest != told:
        raise ValueError(
            f"{weights}: has sha256 {digest[:12]}, its card {card.name} is of {told[:12]}: one of the two was changed."
        )
