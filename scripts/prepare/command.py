"""From a data set in its official layout to one JSON datalist with seeded splits that no group crosses.

    python scripts/prepare/command.py kvasir_seg --dataset_dir DIR --output FILE

A data set is one function made a command: from its folder to the records (image, label, group) of its layout. Run the
script with --help for the data sets, and with a data set and --help for the flags. Masks that are not a plain image of
black and white (run lengths, polygons, instances, label ids) are written as such into FILE without .json + _masks/.
"""

from __future__ import annotations

import glob
import hashlib
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Signature, signature
from pathlib import Path
from typing import Any

import fire
import numpy as np
from tqdm import tqdm

from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.prepare import cells as cell_layouts
from clinbundles.scripts.prepare import retina as retina_layouts
from clinbundles.scripts.prepare import streets as driving_layouts
from clinbundles.scripts.prepare.datalist import (
    SPLITS,
    datalist_as_json,
    join_groups,
    near_duplicates,
    read_official_split,
    split_groups,
)
from clinbundles.scripts.prepare.pairs import (
    Contents,
    DataSet,
    Record,
    inspect,
    own_folder,
    pair_by_name,
    with_foreground,
)
from clinbundles.transforms.readers.decoding import check_range
from clinbundles.transforms.readers.folder import image_stem

FLAGS = """Args:
    dataset_dir: folder of the data set; the paths of the datalist start from it.
    output: JSON file to write.
    ratios: shares of training, validation (may be 0) and test; their sum is 1, 10, 100 or the number of images. The
        default is 6,2,2 for polyps and plain folders, 60,10,30 for the others.
    seed: of the random split.
    skip_bad: list the files that cannot be used, here and in the datalist, and go on without them.
    split: random, or official for a data set with train.txt and val.txt (then there may be no test split).
    gaze: recorded gaze: a file, or a glob of files, one for each observer.
    gaze_format: format of the recordings; auto takes it from their header.
    intensity_range: values that become black and white in images deeper than 8 bits, such as 0,4095.
    observer: whose masks, 1 or 2.
    foreground: ids that are foreground where the masks are label maps, such as 1,2 or 26-31.
    label: what the masks mark.
    modality: how the images were taken.
    join_duplicates: whether near-duplicates are kept in one split (False for images that are all alike).
"""
# The file of one observer, and the fixations (n, 3) of each image by file name.
Observer = tuple[Path, dict[str, np.ndarray]]


COMMANDS: dict[str, Callable[..., None]] = {}
POLYPS: dict[str, Any] = {"label": "polyp", "modality": "endoscopy", "ratios": (6, 2, 2)}


def command(layout: Callable[..., DataSet]) -> Callable[..., None]:
    """Make a sub-command, with all the flags, of a layout: a function from --dataset_dir, and flags of its own."""
    own_flags = [*signature(layout).parameters.values()][1:]

    def run(
        dataset_dir: str,
        output: str,
        *,
        ratios: Any = None,
        seed: int = 0,
        skip_bad: bool = False,
        split: str = "random",
        gaze: str | None = None,
        gaze_format: str = "auto",
        intensity_range: Any = None,
        **flags: Any,
    ) -> None:
        unknown = sorted(flags.keys() - {flag.name for flag in own_flags})
        if unknown:  # fire would first run, and write the datalist, and only then complain
            raise ValueError(f"unknown flags: {', '.join('--' + name for name in unknown)}")
        check_flags(seed=seed, skip_bad=skip_bad, split=split)
        check_range(intensity_range)
        shares = None if ratios is None else parse_ratios(ratios)
        root, target = Path(str(dataset_dir)), Path(str(output))
        if not root.is_dir():
            raise FileNotFoundError(f"--dataset_dir {root}: no such folder")
        if target.is_dir() or not target.parent.is_dir():
            raise ValueError(f"--output {target}: expected a file in a folder that exists")
        observers = read_gaze(str(gaze), gaze_format=gaze_format) if gaze is not None else []
        content = prepare(
            layout(root, **flags),
            root=root,
            mask_folder=target.with_name(f"{target.name.removesuffix('.json')}_masks"),
            ratios=shares,
            seed=seed,
            split=split,
            skip_bad=skip_bad,
            observers=observers,
            intensity_range=intensity_range,
        )
        write_atomically(target, datalist_as_json(content))
        print(f"wrote {target}")

    run.__name__, run.__doc__ = layout.__name__, f"{layout.__doc__}\n\n{FLAGS}"
    *common, unnamed = signature(run).parameters.values()
    vars(run)["__signature__"] = Signature([*common, *own_flags, unnamed])  # for the help
    COMMANDS[layout.__name__] = run
    return run


@command
def kvasir_seg(root: Path) -> DataSet:
    """Kvasir-SEG: images/ and masks/ with the same names; the official split is train.txt (880) and val.txt (120)."""
    folder = own_folder(root, "Kvasir-SEG", holds="images")
    return DataSet(
        folder,
        name="Kvasir-SEG",
        description="Colonoscopy frames with polyp masks (Jha et al., Kvasir-SEG: a segmented polyp dataset, 2020)",
        licence="research and education only",
        records=pair_by_name(folder / "images", folder / "masks"),
        **POLYPS,
    )


@command
def polypgen(root: Path) -> DataSet:
    """PolypGen, single frames: data_C*/images_C* and data_C*/masks_C*, where the name of a mask ends in _mask."""
    folder = own_folder(root, "PolypGen2021_MultiCenterData_v3", holds="data_C*")
    centres = sorted(path.name.removeprefix("data_") for path in folder.glob("data_C*") if path.is_dir())
    if not centres:
        raise FileNotFoundError(f"{folder}: no folder data_C1, data_C2, ... of PolypGen here")
    return DataSet(
        folder,
        name="PolypGen",
        description="Colonoscopy frames of several centres with polyp masks (Ali et al., A multi-centre polyp "
        "detection and segmentation dataset for generalisability assessment, 2023)",
        licence="CC BY 4.0",
        records=[record for centre in centres for record in polypgen_centre(folder, centre)],
        **POLYPS,
    )


@command
def folder(
    root: Path,
    *,
    foreground: Any = None,
    label: str = "polyp",
    modality: str = "endoscopy",
    join_duplicates: bool = True,
) -> DataSet:
    """Plain folder: images/ and masks/ with the same names; an official split is train.txt and val.txt beside them."""
    records = pair_by_name(root / "images", root / "masks")
    if not isinstance(join_duplicates, bool):
        raise ValueError(f"--join_duplicates is {join_duplicates!r}: expected True or False")
    return DataSet(
        root,
        name=root.resolve().name,
        description=f"Frames with {label} masks",
        licence="not stated",
        records=records if foreground is None else with_foreground(records, foreground=parse_ids(foreground)),
        label=str(label),
        modality=str(modality),
        ratios=(6, 2, 2),
        join_duplicates=join_duplicates,
    )


@command
def ph2(root: Path) -> DataSet:
    """PH2: PH2 Dataset images/IMD002/ with IMD002_Dermoscopic_Image/IMD002.bmp and IMD002_lesion/IMD002_lesion.bmp."""
    folder = own_folder(root, "PH2Dataset", holds="PH2 Dataset images")
    cases = sorted((folder / "PH2 Dataset images").glob("IMD*"))
    if not cases:
        raise FileNotFoundError(f"{folder}: no folder PH2 Dataset images/IMD002 and so on here")
    return DataSet(
        folder,
        name="PH2",
        description="Dermoscopy of melanocytic lesions (Mendonca et al., PH2: a dermoscopic image database for "
        "research and benchmarking, 2013)",
        licence="research and education only",
        records=[record for case in cases for record in ph2_case(case)],
        label="lesion",
        modality="dermoscopy",
    )


chase_db1 = command(retina_layouts.chase_db1)
drive = command(retina_layouts.drive)
stare = command(retina_layouts.stare)
retina = command(retina_layouts.retina)
bowl2018 = command(cell_layouts.bowl2018)
sartorius = command(cell_layouts.sartorius)
livecell = command(cell_layouts.livecell)
kitti = command(driving_layouts.kitti)
bdd100k = command(driving_layouts.bdd100k)


def ph2_case(folder: Path) -> Iterable[Record]:
    """Folder of one case of PH2, such as IMD002, in; its record out."""
    name = folder.name
    image = folder / f"{name}_Dermoscopic_Image" / f"{name}.bmp"
    label = folder / f"{name}_lesion" / f"{name}_lesion.bmp"
    if image.is_file() or label.is_file():
        yield Record(image if image.is_file() else None, label if label.is_file() else None, name)


def parse_ids(ids: Any) -> frozenset[int]:
    """Ids as fire gives them for ``1``, ``1,2`` or ``3,26-31`` in, the set of them out."""
    found: set[int] = set()
    for word in ",".join(map(str, ids if isinstance(ids, tuple | list) else [ids])).split(","):
        bounds = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", word)
        if not bounds:
            raise ValueError(f"--foreground is {ids!r}: expected ids such as 1,2 or 26-31")
        found.update(range(int(bounds[1]), int(bounds[2] or bounds[1]) + 1))
    return frozenset(found)


def polypgen_centre(folder: Path, centre: str) -> Iterable[Record]:
    """Records of one centre of PolypGen, such as C1."""
    data = folder / f"data_{centre}"
    return pair_by_name(
        data / f"images_{centre}",
        data / f"masks_{centre}",
        mask_ending="_mask",
        group=lambda stem: polypgen_group(stem, centre=centre),
    )


def polypgen_group(stem: str, *, centre: str) -> str:
    """Name of a PolypGen frame without suffix in, its group out: centre and patient or sequence, or else the name.

    ``102OLCV1_100H0006`` of C1 is of ``C1_102OLCV1``, ``14_endocv2021_positive_902`` of C4 is of ``C4_14``. The other
    centres number their frames throughout.
    """
    found = re.match(r"(\d+OLCV\d+)_|(\d+)_endocv2021_", stem)
    return f"{centre}_{found[1] or found[2]}" if found else stem


def prepare(
    data: DataSet,
    *,
    root: Path,
    mask_folder: Path,
    ratios: Sequence[float] | None,
    seed: int,
    split: str,
    skip_bad: bool,
    observers: Sequence[Observer],
    intensity_range: tuple[float, float] | None,
) -> dict[str, Any]:
    """Data set in, content of its datalist out, with paths relative to ``root``; what was found is printed."""
    listed = sorted(data.records, key=lambda record: record.path.relative_to(root).as_posix())
    shares = data.ratios if ratios is None else ratios
    official: dict[str, str] = {}
    if split == "official":
        official = read_official_split(data.folder, [image_stem(record.path) for record in listed])
    else:
        check_sum(shares, images=len(listed))
    check_gaze(observers, [record.path.name for record in listed])

    good, skipped = inspect_all(
        listed, root=root, mask_folder=mask_folder, skip_bad=skip_bad, intensity_range=intensity_range
    )
    hashes = [contents.perceptual_hash for _, contents in good]
    duplicates = near_duplicates(hashes) if data.join_duplicates else []
    groups = join_groups([record.group for record, _ in good], duplicates)
    if official:
        splits = [official[image_stem(record.path)] for record, _ in good]
        _warn_of_crossing_groups(groups, splits)
    else:
        by_group = split_groups(Counter(groups), ratios=shares, seed=seed)
        splits = [by_group[group] for group in groups]
    items = [
        make_item(record, contents, root=root, group=group, observers=observers)
        for (record, contents), group in zip(good, groups, strict=True)
    ]
    by_split = {name: [i for i, where in zip(items, splits, strict=True) if where == name] for name in SPLITS}
    _report(by_split, label=data.label, foreground=[c.foreground for _, c in good], observers=observers)
    return {
        "name": data.name,
        "description": data.description,
        "licence": data.licence,
        "modality": {str(k): f"{data.modality}, {name}" for k, name in enumerate(("red", "green", "blue"))},
        "labels": {"0": "background", "1": data.label},
        "tensorImageSize": "2D",
        "split": split,
        "seed": None if official else seed,
        "ratios": None if official else list(shares),
        **({} if intensity_range is None else {"intensity_range": list(intensity_range)}),
        **{f"num{name.capitalize()}": len(chosen) for name, chosen in by_split.items()},
        # Of all pairs in the order of their paths: it names the data, whatever the split.
        "data_sha256": hashlib.sha256("".join(item["source_sha256"] for item in items).encode()).hexdigest(),
        "near_duplicates": [[items[first]["image"], items[second]["image"]] for first, second in duplicates],
        "skipped": skipped,
        **({"gaze": {"source": "recorded", "files": {p.name: _sha256(p) for p, _ in observers}}} if observers else {}),
        # MONAI takes the first item of a split to know its kind: an empty one must not be there.
        **{name: chosen for name, chosen in by_split.items() if chosen},
    }


def make_item(
    record: Record, contents: Contents, *, root: Path, group: str, observers: Sequence[Observer]
) -> dict[str, Any]:
    """Checked pair in, its item of the datalist out; observers who did not see the image leave nothing in it."""
    assert record.image is not None
    item: dict[str, Any] = {
        "image": record.image.relative_to(root).as_posix(),
        "label": _path_from(root, contents.label),
        "group": group,
        "source_sha256": contents.sha256,
    }
    seen = [by_image[record.image.name] for _, by_image in observers if record.image.name in by_image]
    if seen:
        item["fixations"] = [
            [[round(x, 5), round(y, 5), round(duration, 1)] for x, y, duration in rows.tolist()] for rows in seen
        ]
        item["gaze_source"] = "recorded"
    return item


def _path_from(root: Path, path: Path) -> str:
    """Path of a file from ``root``; through .. for a converted mask, which lies elsewhere."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    # Of the resolved ones: the .. of a linked folder is that of the folder it stands for.
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def check_flags(*, seed: Any, skip_bad: Any, split: Any) -> None:
    """Refuse values that fire lets through."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"--seed is {seed!r}: expected a whole number from 0 to 2**32 - 1")
    if not isinstance(skip_bad, bool):
        raise ValueError(f"--skip-bad is {skip_bad!r}: it takes no value")
    if split not in ("random", "official"):
        raise ValueError(f"--split is {split!r}: expected random or official")


def parse_ratios(ratios: Any) -> list[float]:
    """Three positive numbers, the second perhaps 0, as fire gives them for ``6,2,2``."""
    numbers = list(ratios) if isinstance(ratios, tuple | list) else [ratios]
    fits = [isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) and n >= 0 for n in numbers]
    if len(numbers) != len(SPLITS) or not all(fits) or 0 in (numbers[0], numbers[2]):
        raise ValueError(
            f"--ratios is {ratios!r}: expected three positive numbers such as 6,2,2 (that of validation may be 0)"
        )
    return numbers


def check_sum(ratios: Sequence[float], *, images: int) -> None:
    """Refuse ratios that were surely meant otherwise, such as 6,2,3."""
    if not any(math.isclose(sum(ratios), total) for total in (1, 10, 100, images)):
        raise ValueError(
            f"--ratios {ratios} sum to {sum(ratios):g}: expected 1, 10, 100 or the number of images, {images}"
        )


def read_gaze(pattern: str, *, gaze_format: str) -> list[Observer]:
    """File or glob in; for each file, one an observer, the fixations (n, 3) of each image out."""
    from clinbundles.transforms.gaze.readers import read_fixations

    paths = [Path(pattern)] if Path(pattern).is_file() else [Path(p) for p in sorted(glob.glob(pattern))]
    if not paths:
        raise FileNotFoundError(f"--gaze {pattern}: no such file")
    return [(path, read_fixations(path, gaze_format=gaze_format)) for path in paths]


def check_gaze(observers: Sequence[Observer], images: Sequence[str]) -> None:
    """Refuse gaze on images that are not there, and images that gaze cannot tell apart."""
    twice = [name for name, count in Counter(images).items() if count > 1]
    if twice and observers:
        raise ValueError(f"--gaze names images by file name, and {twice[0]} occurs more than once")
    for path, by_image in observers:
        unknown = sorted(by_image.keys() - set(images))
        if unknown:
            raise ValueError(f"{path}: gaze on {len(unknown)} images that are not there, the first is {unknown[0]}")


def inspect_all(
    records: Sequence[Record],
    *,
    root: Path,
    mask_folder: Path,
    skip_bad: bool,
    intensity_range: tuple[float, float] | None,
) -> tuple[list[tuple[Record, Contents]], list[dict[str, str]]]:
    """Records in; those of use with their contents, and the others as {"file", "reason"}, out."""
    good: list[tuple[Record, Contents]] = []
    skipped: list[dict[str, str]] = []
    # Missing files show without reading a single one.
    incomplete = next((record for record in records if record.missing()), None)
    if incomplete and not skip_bad:
        raise ValueError(f"{incomplete.missing()} --skip-bad leaves such files out.")
    for record in tqdm(records, desc="checking", unit="image"):
        try:
            mask_file = mask_folder / record.path.relative_to(root).with_name(f"{image_stem(record.path)}.png")
            good.append((record, inspect(record, mask_file=mask_file, intensity_range=intensity_range)))
        except ValueError as error:
            if not skip_bad:
                raise
            reason = str(error).replace(f"{root}{os.sep}", "")
            skipped.append({"file": record.path.relative_to(root).as_posix(), "reason": reason})
    for entry in skipped:
        print(f"skipped {entry['file']}: {entry['reason']}")
    return good, skipped


def _warn_of_crossing_groups(groups: Sequence[str], splits: Sequence[str]) -> None:
    crossing = Counter(group for group, _ in set(zip(groups, splits, strict=True)))
    names = sorted(group for group, count in crossing.items() if count > 1)
    if names:
        print(f"warning: {len(names)} groups are in more than one list of the official split, first {names[0]}")


def _report(
    by_split: Mapping[str, list[dict[str, Any]]],
    *,
    label: str,
    foreground: Sequence[float],
    observers: Sequence[Observer],
) -> None:
    counts = ", ".join(f"{len(items)} {name}" for name, items in by_split.items())
    mean = f"; {label}: {np.mean(foreground):.1%} of an image" if foreground else ""
    print(f"{counts}; {sum(share == 0 for share in foreground)} masks without any {label}{mean}")
    if observers:
        seen = ["fixations" in item for items in by_split.values() for item in items]
        print(f"recorded gaze of {len(observers)} observers; {seen.count(False)} of {len(seen)} images have none")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a sub-command; what is wrong with its input ends as one sentence."""
    try:
        fire.Fire(COMMANDS, command=arguments, name="prepare.py")
    except (ValueError, OSError) as error:
        sys.exit(f"prepare: {error}")


if __name__ == "__main__":
    main()
