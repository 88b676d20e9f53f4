"""The hash that names a data set: of what its files hold, whatever they are called and wherever they lie."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

# What a datalist says of its hash. That of older ones was of the contents in the order of the files' paths.
MEANING = "contents in any order"


def data_hash(digests: Iterable[str]) -> str:
    """Hash the hashes of a data set's parts, each as often as it is there, whatever their order.

    Args:
        digests: hash of each part, such as an image with its mask.
    """
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def hash_facts(digests: Iterable[str]) -> dict[str, str]:
    """Entries of a datalist that name its data."""
    return {"data_sha256": data_hash(digests), "data_sha256_of": MEANING}


def hash_in(content: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Give the hash of the data in a datalist as {"data_sha256"}; of one that depends on the files' order, nothing.

    Args:
        content: of the datalist.
        path: its file, for the message.
    """
    if "data_sha256" not in content:
        return {}
    if content.get("data_sha256_of") != MEANING:
        logger.warning(
            "datalist %s: its data_sha256 depends on the order of the files, as in earlier versions, and is left out "
            "of the records: prepare the data set again for one that can be compared.",
            path,
        )
        return {}
    return {"data_sha256": str(content["data_sha256"])}


def describe_data(datalist: str | os.PathLike | None) -> dict[str, str]:
    """Say what data a training is on: hash, name and licence of a datalist; nothing where there is none."""
    if datalist is None or not Path(datalist).is_file():
        return {}
    raw = Path(datalist).read_bytes()
    content = json.loads(raw)
    return {
        "datalist_sha256": hashlib.sha256(raw).hexdigest(),
        **{f"data_{key}": str(content[key]) for key in ("name", "licence") if key in content},
        **hash_in(content, Path(datalist)),
    }
