"""The datalist of 8-bit slices with label maps: each cut to one square size, written, and split by patients."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from clinbundles.engines.outputs.files import replacing, write_atomically

from .annotations import Omissions
from .datalist import SPLITS, check_seed, check_sum, datalist_as_json, parse_ratios, split_groups


class Slice(NamedTuple):
    """One slice at its own size.

    Args:
        grey: float32 or uint8 (H, W), from 0 to 255.
        labels: uint8 (H, W) of class ids, or None.
        position: its place in the series: mm along the slices, or a number.
    """

    grey: np.ndarray
    labels: np.ndarray | None
    position: float | tuple[int, int]


@dataclass(frozen=True)
class Series:
    """Slices of one patient that belong together.

    Args:
        name: its path from the data set's folder, by which it is chosen; it is not written.
        patient: who it is of, which is not written either.
        read: gives its slices, or raises ``ValueError`` with a sentence on why it is of no use.
        files: what it is read from, for its hash.
    """

    name: str
    patient: str
    read: Callable[[], Iterator[Slice]]
    files: Sequence[Path]


@dataclass(frozen=True)
class SliceSet:
    """Series of slices: what the data set is, and how its slices come to one size.

    Args:
        name: of the data set.
        description: what it holds, with its source.
        licence: of the data.
        modality: how the slices were taken.
        series: its series.
        labels: names of the classes in the order of their ids; empty without label maps.
        labeller: who made the label maps.
        window_hu: HU that become 0 and 255, for CT.
        ratios: shares of training, validation and test where none are asked for.
        crops: slices are cut into squares at their own scale; otherwise the whole is reduced.
        keep: ids of which a slice must have some to be kept, and the least share of it; none keeps all.
        omissions: what was left out before, by reason.
        facts: more entries of the datalist.
    """

    name: str
    description: str
    licence: str
    modality: str
    series: Sequence[Series]
    labels: Sequence[str] = ()
    labeller: str | None = None
    window_hu: tuple[float, float] | None = None
    ratios: tuple[float, float, float] = (60, 10, 30)
    crops: bool = False
    keep: tuple[frozenset[int], float, str] | None = None
    omissions: Omissions = field(default_factory=Omissions)
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_slices(
    data: SliceSet,
    *,
    root: Path,
    target: Path,
    image_size: int = 256,
    test: str | None = None,
    validation: str | None = None,
    ratios: Any = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> None:
    """Write slices as 8-bit PNG into images/ and their class ids into labels/ beside the datalist.

    Args:
        data: the data set.
        root: folder of the data set.
        target: JSON file to write.
        image_size: side of the square pictures, in px.
        test: glob patterns of the series of the test split, such as "*A0001*,*A0002*"; the others are for training.
        validation: patterns of the series of the validation split.
        ratios: shares of training, validation and test of a random split by patients, where no patterns are given.
        seed: of the random split.
        skip_bad: leave out series that are of no use, list them here and in the datalist, and go on.
    """
    check_seed(seed)
    if type(image_size) is not int or not 16 <= image_size <= 1024:
        raise ValueError(f"--image_size is {image_size!r}: expected a whole number of px from 16 to 1024")
    by_pattern = chosen_splits(data.series, test=test, validation=validation)
    if by_pattern and ratios is not None:
        raise ValueError("--ratios are of a random split: leave them out, or --test and --validation")
    shares = list(data.ratios) if ratios is None else parse_ratios(ratios)
    numbers = numbers_of(data.series)
    items: list[dict[str, Any]] = []
    digests: list[str] = []
    faults: list[str] = []
    omitted = data.omissions
    came = 0
    for folder in ("images", *(["labels"] if data.labels else [])):
        (target.parent / folder).mkdir(exist_ok=True)
    for series in tqdm(data.series, desc="reading", unit="series", disable=None):
        stem, digest = numbers[series.name], sha256_of(series.files)
        digests.append(digest)
        try:
            slices = list(series.read())
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error} --skip_bad leaves such series out.") from error
            faults.append(str(error).replace(f"{root}/", ""))
            continue
        for number, one in enumerate(slices):
            for suffix, piece in pieces_of(one, data=data, image_size=image_size):
                came += 1
                if piece.labels is not None and data.keep and np.isin(piece.labels, list(data.keep[0])).mean() < data.keep[1]:
                    omitted.add(data.keep[2], series.name)
                    continue
                items.append(write_piece(piece, f"{stem}_{number + 1:03d}{suffix}", target.parent, digest))
    if not by_pattern:
        groups = Counter(item["group"] for item in items)
        by_group = split_groups(groups, ratios=shares, seed=seed)
    else:
        by_group = {numbers[s.name].partition("_")[0]: by_pattern[s.name] for s in data.series}
    splits = {name: [item for item in items if by_group[item["group"]] == name] for name in SPLITS}
    lists = {name: members for name, members in splits.items() if members}
    facts = {
        "name": data.name,
        "description": data.description,
        "licence": data.licence,
        "modality": {"0": data.modality},
        "labels": {str(k): name for k, name in enumerate(data.labels)},
        "labeller": data.labeller,
        **({"window_hu": list(data.window_hu)} if data.window_hu else {}),
        "image_size": image_size,
        "tensorImageSize": "2D",
        **data.facts,
        "split": "patterns" if by_pattern else "random",
        "seed": None if by_pattern else seed,
        "ratios": None if by_pattern else shares,
        **{f"num{name.capitalize()}": len(members) for name, members in splits.items()},
        "data_sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "left_out": omitted.counts,
        "skipped": faults,
    }
    write_atomically(target, datalist_as_json({**facts, **lists}))
    print(f"{data.name}: {len(data.series)} series came in; {came} slices, {len(items)} are used; left out: {omitted.counts}")
    print(", ".join(f"{len(m)} {n} of {len({i['group'] for i in m})} patients" for n, m in splits.items()))


def chosen_splits(series: Sequence[Series], *, test: str | None, validation: str | None) -> dict[str, str]:
    splits: dict[str, str] = {}
    patterns = {"test": test, "validation": validation}
    for split, text in patterns.items():
        for pattern in (text or "").split(",") if text else []:
            hits = [s.name for s in series if fnmatchcase(s.name, pattern)]
            if not hits:
                raise ValueError(f"--{split} {pattern}: no series goes by it")
            for hit in hits:
                splits[hit] = split
    if not splits:
        return {}
    result = {s.name: splits.get(s.name, "training") for s in series}
    seen: dict[str, str] = {}
    for s in series:
        if seen.setdefault(s.patient, result[s.name]) != result[s.name]:
            raise ValueError(f"a patient is in two splits: {s.name}")
    return result


def numbers_of(series: Sequence[Series]) -> dict[str, str]:
    patients = sorted({s.patient for s in series})
    width = max(2, len(str(len(patients))))
    count: Counter[str] = Counter()
    names = {}
    for s in series:
        count[s.patient] += 1
        names[s.name] = f"p{patients.index(s.patient) + 1:0{width}d}_s{count[s.patient]}"
    return names


def pieces_of(one: Slice, *, data: SliceSet, image_size: int) -> Iterator[tuple[str, Slice]]:
    height, width = one.grey.shape
    if not data.crops:
        labels = None if one.labels is None else reduce_labels(one.labels, image_size, classes=len(data.labels))
        yield "", Slice(reduce_grey(one.grey, image_size), labels, one.position)
        return
    for row in range(0, height - image_size + 1, image_size):
        for column in range(0, width - image_size + 1, image_size):
            place = slice(row, row + image_size), slice(column, column + image_size)
            labels = None if one.labels is None else one.labels[place]
            yield f"_{row // image_size:02d}{column // image_size:02d}", Slice(one.grey[place], labels, (row, column))


def reduce_grey(grey: np.ndarray, size: int) -> np.ndarray:
    """Reduce a picture, (H, W) of any number type, to float32 (size, size), each pixel the mean of its area."""
    image = Image.fromarray(np.asarray(grey, dtype=np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def reduce_labels(labels: np.ndarray, size: int, *, classes: int) -> np.ndarray:
    """Reduce class ids (H, W) to uint8 (size, size): of the ids in the area of a pixel, the one of most, then lowest."""
    shares = [reduce_grey(labels == k, size) for k in range(classes)]
    return np.argmax(np.stack(shares), axis=0).astype(np.uint8)


def write_piece(piece: Slice, name: str, folder: Path, digest: str) -> dict[str, Any]:
    grey = np.clip(np.rint(piece.grey), 0, 255).astype(np.uint8)
    files = {"image": (f"images/{name}.png", grey)}
    if piece.labels is not None:
        files["label"] = (f"labels/{name}.png", piece.labels)
    for path, array in files.values():
        with replacing(folder / path) as partial:
            Image.fromarray(array).save(partial, format="PNG")
    return {
        **{key: path for key, (path, _) in files.items()},
        "group": name.partition("_")[0],
        "position": piece.position,
        "source_sha256": digest,
    }


def sha256_of(files: Sequence[Path]) -> str:
    """Hash the bytes of files; of several, the hashes of each."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
