"""The datalist of images with masks: pairs checked, near-duplicates joined, groups split."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clinbundles.engines.data_hash import hash_facts
from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.bars import watch
from clinbundles.transforms.readers.decoding import check_range
from clinbundles.transforms.readers.folder import image_stem, is_image

from .annotations import InstanceSet, Omissions
from .datalist import (
    NEAR_DUPLICATE_BITS,
    SPLITS,
    check_seed,
    check_sum,
    datalist_as_json,
    join_groups,
    near_duplicates,
    parse_ratios,
    read_official_split,
    split_groups,
)
from .original_sizes import join_size, say_sizes
from .pairs import Contents, DataSet, Record, inspect
from .recordings import gaze_facts, recorded_gaze, say_gaze


def write_masks(
    data: DataSet,
    *,
    root: Path,
    target: Path,
    ratios: Any = None,
    seed: int = 0,
    skip_bad: bool = False,
    split: Literal["random", "official"] = "random",
    intensity_range: Any = None,
) -> None:
    """Write the datalist of images with masks.

    Masks that are not a plain image of black and white (run lengths, polygons, instances, label ids) are written as
    such into a folder beside the datalist, its name without .json and with _masks.

    Args:
        data: the data set.
        root: folder that the paths of the datalist start from.
        target: JSON file to write.
        ratios: shares of training, validation and test, such as 6,2,2; a split of share 0 stays empty. Their sum is 1,
            10, 100 or the number of images. The default is 6,2,2 for polyps and plain folders, 60,10,30 for the others.
        seed: of the random split.
        skip_bad: list the files that cannot be used, here and in the datalist, and go on without them.
        split: random, or official for a data set with train.txt and val.txt (then there may be no test split).
        intensity_range: values that become black and white in images deeper than 8 bits, such as 0,4095.
    """
    check_seed(seed)
    check_range(intensity_range)
    if ratios is not None and split == "official":
        raise ValueError("--ratios are of a random split: leave them out, or --split official")
    records = sorted(data.records, key=lambda record: record.path.relative_to(root).as_posix())
    shares = list(data.ratios) if ratios is None else parse_ratios(ratios)
    official: dict[str, str] = {}
    if split == "official":
        official = read_official_split(data.folder, [image_stem(record.path) for record in records])
    else:
        check_sum(shares, images=len(records))
    recordings = () if data.gaze is None else data.gaze.read([record.path.name for record in records])

    mask_folder = target.with_name(f"{target.name.removesuffix('.json')}_masks")
    with removed_after_failure(mask_folder):
        pairs, faults, omitted = inspect_all(
            records, root=root, mask_folder=mask_folder, skip_bad=skip_bad, intensity_range=intensity_range
        )
        if not pairs:
            raise ValueError(f"{data.folder}: no pair of {len(records)} is of use.")
        hashes = [contents.perceptual_hash for _, contents in pairs]
        duplicates = near_duplicates(hashes, bits=NEAR_DUPLICATE_BITS) if data.join_duplicates else []
        groups = join_groups([record.group for record, _ in pairs], duplicates)
        by_group = {} if official else split_groups(Counter(groups), ratios=shares, seed=seed)
    split_of = [official.get(image_stem(r.path)) or by_group[g] for (r, _), g in zip(pairs, groups, strict=True)]
    items = [
        join_size(as_item(*pair, root=root, group=group), recorded_gaze(pair[0].path.name, recordings))
        for pair, group in zip(pairs, groups, strict=True)
    ]
    splits = {name: [i for i, where in zip(items, split_of, strict=True) if where == name] for name in SPLITS}
    facts = {
        "split": split,
        "seed": None if official else seed,
        "ratios": None if official else shares,
        **({} if intensity_range is None else {"intensity_range": list(intensity_range)}),
        **{f"num{name.capitalize()}": len(members) for name, members in splits.items()},
        **hash_facts(item["source_sha256"] for item in items),
        "near_duplicates": [[items[first]["image"], items[second]["image"]] for first, second in duplicates],
        "skipped": faults,
        **({"gaze": gaze_facts(data.gaze, recordings)} if data.gaze else {}),
    }
    # MONAI takes the first item of a split to know its kind: an empty one must not be there.
    lists = {name: members for name, members in splits.items() if members}
    write_atomically(target, datalist_as_json({**describe(data), **facts, **lists}))

    warn_of_crossing_groups(groups, split_of)
    if strays := other_files(records):
        print(f"{len(strays)} files beside the images and masks are no images and were passed over, first {strays[0]}")
    _report(splits, label=data.label, foreground=[contents.foreground for _, contents in pairs])
    if recordings:
        print(say_gaze(items, recordings))
    if sentence := say_sizes(items):
        print(sentence)
    reasons = f" ({omitted})" if faults else ""
    print(
        f"{data.name}: {len(records)} pairs came in, {len(items)} are used, {len(faults)} are left out{reasons}; "
        f"wrote {target}"
    )


def other_files(records: Sequence[Record]) -> list[str]:
    """Names of files beside images and masks that are no images, such as Thumbs.db, or hidden, such as ._a.jpg."""
    own = {path for record in records for path in (record.image, record.label) if path is not None}
    folders = {path.parent for path in own}
    files = [path for folder in folders for path in folder.iterdir() if path not in own and path.is_file()]
    return sorted(path.name for path in files if not is_image(path))


@contextmanager
def removed_after_failure(folder: Path) -> Iterator[None]:
    """Remove a folder that is new, where what is done meanwhile fails."""
    is_new = not folder.exists()
    try:
        yield
    except BaseException:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def describe(data: DataSet | InstanceSet) -> dict[str, Any]:
    """Entries of a datalist that say what the data set is."""
    return {
        "name": data.name,
        "description": data.description,
        "licence": data.licence,
        "modality": {str(k): f"{data.modality}, {name}" for k, name in enumerate(("red", "green", "blue"))},
        "labels": {"0": "background", "1": data.label},
        "tensorImageSize": "2D",
    }


def as_item(record: Record, contents: Contents, *, root: Path, group: str) -> dict[str, Any]:
    """Item of a checked pair in the datalist."""
    assert record.image is not None
    return {
        "image": record.image.relative_to(root).as_posix(),
        "label": path_from(root, contents.label),
        "group": group,
        **({"source": record.source} if record.source else {}),
        "source_sha256": contents.sha256,
        **({"original_size": list(record.original_size)} if record.original_size else {}),
    }


def path_from(root: Path, path: Path) -> str:
    """Path of a file from ``root``; through .. for a converted mask, which lies elsewhere."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    # Of the resolved ones: the .. of a linked folder is that of the folder it stands for.
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def inspect_all(
    records: Sequence[Record],
    *,
    root: Path,
    mask_folder: Path,
    skip_bad: bool,
    intensity_range: tuple[float, float] | None,
) -> tuple[list[tuple[Record, Contents]], list[dict[str, str]], Omissions]:
    """Check the pairs: those of use with what they hold, the others as {"file", "reason"}, and their count by kind.

    Args:
        records: the pairs.
        root: folder that file names start from.
        mask_folder: folder for the masks that must be converted.
        skip_bad: go on without pairs of no use, instead of stopping at the first.
        intensity_range: see :class:`clinbundles.transforms.readers.images.RGBImageReader`.

    Raises:
        ValueError: a pair is of no use, unless ``skip_bad``.
    """
    pairs: list[tuple[Record, Contents]] = []
    faults: list[dict[str, str]] = []
    omitted = Omissions()
    # Missing files show without reading a single one.
    incomplete = next((record for record in records if record.missing()), None)
    if incomplete and not skip_bad:
        raise ValueError(f"{incomplete.missing()} --skip_bad leaves such files out.")
    for record in watch(records, desc="checking", unit="image"):
        try:
            mask_file = mask_folder / record.path.relative_to(root).with_name(f"{image_stem(record.path)}.png")
            pairs.append((record, inspect(record, mask_file=mask_file, intensity_range=intensity_range)))
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error} --skip_bad leaves such files out.") from error
            reason = str(error).replace(f"{root}{os.sep}", "")
            faults.append({"file": record.path.relative_to(root).as_posix(), "reason": reason})
            kind = "masks without image" if record.image is None else "images without mask"
            is_bad = record.fault or (record.image and record.label)
            omitted.add("that are bad" if is_bad else kind, faults[-1]["file"])
    for entry in faults:
        reason = entry["reason"].removeprefix(f"{entry['file']}: ")
        print(f"skipped {entry['file']}: {reason}")
    return pairs, faults, omitted


def warn_of_crossing_groups(groups: Sequence[str], split_of: Sequence[str]) -> None:
    """Print how many groups are in more than one split."""
    crossing = Counter(group for group, _ in set(zip(groups, split_of, strict=True)))
    names = sorted(group for group, count in crossing.items() if count > 1)
    if names:
        print(f"warning: {len(names)} groups are in more than one list of the official split, first {names[0]}")


def _report(splits: Mapping[str, Sequence[Any]], *, label: str, foreground: Sequence[float]) -> None:
    counts = ", ".join(f"{len(items)} {name}" for name, items in splits.items())
    mean = f"; {label}: {np.mean(foreground):.1%} of an image" if foreground else ""
    print(f"{counts}; {sum(share == 0 for share in foreground)} masks without any {label}{mean}")
