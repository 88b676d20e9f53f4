"""The datalist of 8-bit slices with label maps: each brought to one square size, written, and split by patients."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clinbundles.engines.data_hash import data_hash, hash_facts
from clinbundles.engines.folder_lock import lock_folder, unlock_folder
from clinbundles.engines.outputs.files import partials, remove_partials, replacing
from clinbundles.scripts.bars import watch

from .annotations import Omissions
from .datalist import SPLITS, check_seed, datalist_as_json, parse_ratios, split_groups
from .series import Requirement, Series, Slice, SliceSet, group_in, group_of, number, splits_by_pattern


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
    """Write slices as 8-bit PNG into images/, and their class ids into labels/, both new folders beside the datalist.

    A slice is reduced to the mean of the pixels in an area, its labels to the id of most pixels there. Patients and
    series are numbered, and go by these numbers alone: p01_s1_003.png.

    Args:
        data: the data set.
        root: folder of the data set.
        target: JSON file to write; the paths of the datalist start from its folder.
        image_size: side of the square pictures, in px.
        test: patterns of the series of the test split, such as "*A0001*,*A0002*", of which no patient may be elsewhere;
            without any patterns patients are split at random.
        validation: patterns of the series of the validation split.
        ratios: shares of training, validation and test of a random split, such as 60,10,30; a split of share 0 stays
            empty.
        seed: of the random split.
        skip_bad: list the series that cannot be used, here and in the datalist, and go on without them.
    """
    check_seed(seed)
    if type(image_size) is not int or not 16 <= image_size <= 1024:
        raise ValueError(f"--image_size is {image_size!r}: expected a whole number of px from 16 to 1024")
    if not data.series:
        raise ValueError(f"{root}: no series here{f', but {data.omissions}' if data.omissions.counts else ''}.")
    by_name = splits_by_pattern(data.series, {"test": test, "validation": validation})
    if by_name and data.only_split:
        raise ValueError(f"--test and --validation choose patients, which {data.name} does not tell")
    is_random = not by_name and not data.only_split
    if ratios is not None and not is_random:
        raise ValueError("--ratios are of a random split by patients, which this is not")
    shares = list(data.ratios) if ratios is None else parse_ratios(ratios)
    folders = {name: target.parent / name for name in ("images", *(["labels"] if data.labels else []))}
    stems = number(data.series)
    with ExitStack() as stack:
        lock_folder(target.parent, doing="preparation")
        stack.callback(unlock_folder, target.parent)
        if partials(target) and not target.exists():  # of a run that was killed when its folders were in their places
            for folder in folders.values():
                shutil.rmtree(folder, ignore_errors=True)
        remove_partials(target, *folders.values())
        if existing := [folder for folder in folders.values() if folder.exists()]:
            raise ValueError(f"{existing[0]} is there already: remove it, or write to another folder")
        partial = stack.enter_context(replacing(target))  # takes its place last
        places = {name: stack.enter_context(replacing(folder)) for name, folder in folders.items()}
        for place in places.values():
            place.mkdir()
        written = write_series(stems, data=data, root=root, places=places, image_size=image_size, skip_bad=skip_bad)
        split_of = {group_of(stem): by_name.get(one.name) or data.only_split for stem, one in stems.items()}
        if is_random:
            split_of = dict(split_groups(Counter(map(group_in, written.items)), ratios=shares, seed=seed))
        splits = {name: [item for item in written.items if split_of[group_in(item)] == name] for name in SPLITS}
        facts = {
            **describe_slices(data),
            "image_size": image_size,
            "split": "random" if is_random else data.only_split or "by name",
            "seed": seed if is_random else None,
            "ratios": shares if is_random else None,
            **{f"num{name.capitalize()}": len(members) for name, members in splits.items()},
            **hash_facts(written.digests),
            "left_out": written.omitted.counts,
            "skipped": written.faults,
        }
        # MONAI takes the first item of a split to know its kind: an empty one must not be there.
        lists = {name: members for name, members in splits.items() if members}
        partial.write_text(datalist_as_json({**facts, **lists}), encoding="utf-8")
    counts = [f"{len(m)} {name} of {len(set(map(group_in, m)))} groups" for name, m in splits.items()]
    print(f"{', '.join(counts)}; labels: {data.labeller or 'none'}")
    print(f"{data.name}: {written.summary()}; wrote {target}")


@dataclass
class Written:
    """What became of the series: items of the datalist, hashes of all sources, what was left out and why."""

    items: list[dict[str, Any]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    omitted: Omissions = field(default_factory=Omissions)
    faults: list[dict[str, str]] = field(default_factory=list)
    slices: int = 0

    def summary(self) -> str:
        """Count the series and slices that came, those of use, and the rest by its reason."""
        used = len({item["image"].rpartition("_")[0] for item in self.items})
        came = f"{len(self.digests)} series with {self.slices} slices came in"
        rest = f"; left out: {self.omitted}" if self.omitted.counts else ""
        return f"{came}, {used} with {len(self.items)} are used{rest}"


def write_series(
    stems: Mapping[str, Series],
    *,
    data: SliceSet,
    root: Path,
    places: Mapping[str, Path],
    image_size: int,
    skip_bad: bool,
) -> Written:
    """Write the slices of all series that are of use.

    Args:
        stems: the series by the start of the names of their files.
        data: the data set.
        root: folder of the data set.
        places: folders for images and labels.
        image_size: side of the square pictures, in px.
        skip_bad: go on without series of no use, instead of stopping at the first.

    Raises:
        ValueError: a series is of no use, unless ``skip_bad``; two patients share a file; or nothing is of use.
    """
    written, first = Written(), dict[str, Series]()
    written.omitted.join(data.omissions)
    for stem, series in watch(stems.items(), desc="reading", unit="series"):
        path, digest = root / series.name, sha256_of(series.files)
        written.digests.append(digest)
        if (twin := first.setdefault(digest, series)).patient != series.patient:
            raise ValueError(f"{path}: the same as {twin.name}, but of another patient; --patients says who is one.")
        try:
            pieces = [piece for one in series.read() for piece in pieces_of(one, data, image_size, path=path)]
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error} --skip_bad leaves such series out.") from error
            written.faults.append({"series": stem, "reason": str(error).replace(str(path), stem)})
            written.omitted.add("series that are bad", stem)
            print(f"skipped {series.name}: {error}")
            continue
        written.slices += len(pieces)
        for rank, piece in enumerate(pieces, start=1):
            name = f"{stem}_{piece.name or f'{rank:03d}'}"
            if lack := lack_of(piece, data.requirement):
                written.omitted.add(lack, name)
            else:
                written.items.append(write_slice(piece, name, places, digest))
    if not written.items:
        raise ValueError(f"{root}: no slice of {written.slices} is of use: {written.omitted}.")
    return written


def describe_slices(data: SliceSet) -> dict[str, Any]:
    """Entries of a datalist that say what the data set is."""
    return {
        "name": data.name,
        "description": data.description,
        "licence": data.licence,
        "modality": {"0": data.modality},
        "labels": {str(k): name for k, name in enumerate(data.labels)},
        "labeller": data.labeller,
        **({"window_hu": list(data.window_hu)} if data.window_hu else {}),
        "tensorImageSize": "2D",
        **data.facts,
    }


def pieces_of(one: Slice, data: SliceSet, size: int, *, path: Path) -> Iterator[Slice]:
    """Bring a slice to squares of one size: reduce it whole, or cut it at its own scale, without the rest.

    Raises:
        ValueError: it is smaller, or not square where it is reduced.
    """
    height, width = one.grey.shape
    if min(height, width) < size:
        raise ValueError(f"{path}: slices of {width}x{height} px are smaller than --image_size {size}.")
    if not data.crops:
        if height != width:
            raise ValueError(f"{path}: slices of {width}x{height} px are not square: crop or pad them first.")
        labels = None if one.labels is None else reduce_labels(one.labels, size, classes=len(data.labels))
        yield one._replace(grey=reduce_grey(one.grey, size), labels=labels)
        return
    for row in range(0, height - size + 1, size):
        for column in range(0, width - size + 1, size):
            place = slice(row, row + size), slice(column, column + size)
            labels = None if one.labels is None else one.labels[place]
            name = f"{one.name}r{row // size:02d}c{column // size:02d}"
            yield Slice(one.grey[place], labels, (row, column), name)


def reduce_grey(grey: np.ndarray, size: int) -> np.ndarray:
    """Reduce a picture, (H, W) of any number type, to float32 (size, size), each pixel the mean of its area."""
    image = Image.fromarray(np.asarray(grey, dtype=np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def reduce_labels(labels: np.ndarray, size: int, *, classes: int) -> np.ndarray:
    """Reduce class ids (H, W) to uint8 (size, size), each the one of most pixels in its area, the lowest of equals."""
    shares = [reduce_grey(labels == k, size) for k in range(classes)]
    return np.argmax(np.stack(shares), axis=0).astype(np.uint8)


def lack_of(piece: Slice, requirement: Requirement | None) -> str | None:
    """What a slice lacks to be kept, or None."""
    if piece.grey.min() == piece.grey.max():
        return "slices of one grey value"
    if requirement and piece.labels is not None:
        share = np.isin(piece.labels, list(requirement.ids)).mean()
        return requirement.lack if share < requirement.share else None
    return None


def write_slice(piece: Slice, name: str, places: Mapping[str, Path], digest: str) -> dict[str, Any]:
    """Write a slice and its labels as PNG, and give its item of the datalist."""
    item: dict[str, Any] = {"image": f"images/{name}.png"}
    Image.fromarray(np.clip(np.rint(piece.grey), 0, 255).astype(np.uint8)).save(places["images"] / f"{name}.png")
    if piece.labels is not None:
        item["label"] = f"labels/{name}.png"
        Image.fromarray(piece.labels).save(places["labels"] / f"{name}.png")
    return {**item, "group": group_of(name), "position": piece.position, "source_sha256": digest}


def sha256_of(files: Sequence[Path]) -> str:
    """Hash the bytes of a file; of several, their hashes whatever their order."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return digests[0] if len(digests) == 1 else data_hash(digests)
