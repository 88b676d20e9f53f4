"""The datalist of images with instances, and beside it one COCO list of their boxes, masks and points."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from clinbundles.engines.data_hash import hash_facts
from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.bars import watch
from clinbundles.transforms.readers.decoding import check_range

from .annotations import AnnotatedImage, CellSet, Instance, InstanceSet, Omissions, Tally, usable_instances, with_points
from .datalist import SPLITS, check_seed, check_sum, datalist_as_json, join_groups, parse_ratios, split_groups
from .masks import describe, path_from, warn_of_crossing_groups, write_masks

# Fewer images of one look than these cannot give each split some.
SMALLEST_STRATUM = 10
OTHER = "other"


@dataclass(frozen=True)
class Inspection:
    """A usable image: what it holds, how it looks, the hash of its pixels and of what is known about it."""

    source: AnnotatedImage
    height: int
    width: int
    look: str
    pixels_sha256: str
    sha256: str
    instances: list[Instance]


def write_cells(
    data: CellSet,
    *,
    root: Path,
    target: Path,
    targets: Literal["masks", "instances"] = "masks",
    points: int | None = None,
    ratios: Any = None,
    seed: int = 0,
    skip_bad: bool = False,
    split: Literal["random", "official"] = "random",
    intensity_range: Any = None,
) -> None:
    """Write the datalist of images with instances, with one mask an image or with each instance in a COCO list.

    Masks are written into a folder beside the datalist, its name without .json and with _masks, the COCO list into a
    file, with _coco.json.

    Args:
        data: the data set.
        root: folder that the paths of the datalist start from.
        target: JSON file to write.
        targets: masks, one an image, or instances.
        points: number of points that are drawn in the box of each instance, 10 unless told otherwise.
        ratios: shares of training, validation and test, such as 6,2,2; a split of share 0 stays empty. Their sum is 1,
            10, 100 or the number of images.
        seed: of the random split and of the points.
        skip_bad: list the files that cannot be used, here and in the datalist, and go on without them.
        split: random, or official for a data set that has one.
        intensity_range: values that become black and white in images deeper than 8 bits, such as 0,4095.
    """
    common: dict[str, Any] = {"ratios": ratios, "seed": seed, "skip_bad": skip_bad, "split": split}
    common |= {"root": root, "target": target, "intensity_range": intensity_range}
    if targets == "instances":
        write_instances(data.instances, points=10 if points is None else points, **common)
    elif points is not None:
        raise ValueError("--points are of instances: add --targets instances")
    else:
        write_masks(data.masks, **common)


def write_instances(
    data: InstanceSet,
    *,
    root: Path,
    target: Path,
    points: int = 10,
    ratios: Any = None,
    seed: int = 0,
    skip_bad: bool = False,
    split: Literal["random", "official"] = "random",
    intensity_range: Any = None,
) -> None:
    """Write the datalist of images with instances, and beside it the COCO list that its labels name.

    Args:
        data: the data set.
        root: folder that the paths of the datalist start from.
        target: JSON file to write.
        points: number of points that are drawn in the box of each instance with a mask and without points of its own.
        ratios: shares of training, validation and test, such as 6,2,2; a split of share 0 stays empty. Their sum is 1,
            10, 100 or the number of images. The default is 60,10,30.
        seed: of the random split and of the points.
        skip_bad: list the files that cannot be used, here and in the datalist, and go on without them.
        split: random, or official for a data set that has one.
        intensity_range: values that become black and white in images deeper than 8 bits, such as 0,4095.
    """
    check_seed(seed)
    check_range(intensity_range)
    if type(points) is not int or points < 0:
        raise ValueError(f"--points is {points!r}: expected a whole number from 0 on")
    if ratios is not None and split == "official":
        raise ValueError("--ratios are of a random split: leave them out, or --split official")
    shares = list(data.ratios) if ratios is None else parse_ratios(ratios)
    sources = sorted(data.images, key=lambda source: source.image.as_posix())
    if split == "official":
        _check_official(sources, name=data.name)
    else:
        check_sum(shares, images=len(sources))

    tally = Tally()
    images, omitted, faults = inspect_images(
        sources, root=root, skip_bad=skip_bad, intensity_range=intensity_range, tally=tally
    )
    duplicates = identical_pairs([image.pixels_sha256 for image in images])
    groups = join_groups([image.source.group for image in images], duplicates)
    strata = pool_looks([image.look for image in images]) if data.by_look else [OTHER] * len(images)
    if split == "official":
        split_of = [str(image.source.split) for image in images]
    else:
        by_group = split_strata(groups, strata, ratios=shares, seed=seed)
        split_of = [by_group[group] for group in groups]

    coco_file = target.with_name(f"{target.name.removesuffix('.json')}_coco.json")
    numbers = number([image.source.id for image in images])
    content = as_coco(images, numbers, data=data, root=root, points=points, seed=seed)
    items = [
        {
            "image": image.source.image.relative_to(root).as_posix(),
            "label": path_from(root, coco_file),
            "image_id": image_id,
            "group": group,
            **({"stratum": image.look} if data.by_look else {}),
            "source_sha256": image.sha256,
        }
        for image, image_id, group in zip(images, numbers, groups, strict=True)
    ]
    splits = {name: [i for i, where in zip(items, split_of, strict=True) if where == name] for name in SPLITS}
    facts: dict[str, Any] = {
        "split": split,
        "seed": seed,
        "ratios": None if split == "official" else shares,
        "points": points,
        **({} if intensity_range is None else {"intensity_range": list(intensity_range)}),
        **{f"num{name.capitalize()}": len(members) for name, members in splits.items()},
        **({"strata": dict(Counter(strata).most_common())} if data.by_look else {}),
        **hash_facts(image.sha256 for image in images),
        "duplicates": [[items[first]["image"], items[second]["image"]] for first, second in duplicates],
        "left_out": {
            "images": omitted.counts,
            "instances": tally.omitted.counts,
            "points": tally.points.counts,
        },
        "skipped": faults,
    }
    # MONAI takes the first item of a split to know its kind: an empty one must not be there.
    lists = {name: members for name, members in splits.items() if members}
    write_atomically(coco_file, datalist_as_json(content))
    write_atomically(target, datalist_as_json({**describe(data), **facts, **lists}))

    warn_of_crossing_groups(groups, split_of)
    for line in (*_lines(data, splits, strata, duplicates), f"wrote {target} and {coco_file.name}"):
        print(line)
    drawn = sum(len(annotation["point_labels"]) for annotation in content["annotations"])
    print(_summary(len(sources), images, omitted, tally, points=drawn))


def _check_official(sources: Sequence[AnnotatedImage], *, name: str) -> None:
    if without := [source for source in sources if source.split is None]:
        raise ValueError(f"--split official: {name} tells no split of {without[0].image}")


def inspect_images(
    sources: Sequence[AnnotatedImage],
    *,
    root: Path,
    skip_bad: bool,
    intensity_range: Any,
    tally: Tally,
) -> tuple[list[Inspection], Omissions, list[dict[str, str]]]:
    """Read the images and their annotations: those of use, those left out, and of these the bad ones by file.

    Raises:
        ValueError: an image is bad, unless ``skip_bad``; or none is of use.
    """
    images: list[Inspection] = []
    omitted, faults = Omissions(), []
    for source in watch(sources, desc="checking", unit="image"):
        name = source.image.relative_to(root).as_posix()
        if source.unused:
            omitted.add(source.unused, name)
            continue
        try:
            images.append(inspect_image(source, intensity_range=intensity_range, tally=tally))
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error} --skip_bad leaves such files out.") from error
            omitted.add("that are bad", name)
            faults.append({"file": name, "reason": str(error).replace(f"{root}/", "")})
            print(f"skipped {name}: {faults[-1]['reason']}")
    if not images:
        raise ValueError(f"{root}: no image of {len(sources)} is of use.")
    return images, omitted, faults


def inspect_image(source: AnnotatedImage, *, intensity_range: Any, tally: Tally) -> Inspection:
    """Read an image and its annotations.

    Raises:
        ValueError: the file is missing or corrupt, a stack, or of another size than its list says.
    """
    from clinbundles.transforms.readers.images import RGBImageReader  # brings torch and MONAI

    if source.fault:
        raise ValueError(source.fault)
    refuse_stack(source.image)
    pixels = RGBImageReader(intensity_range=intensity_range).read(source.image)
    height, width = pixels.shape[:2]
    if source.size not in (None, (width, height)):
        assert source.size is not None
        raise ValueError(f"{source.image}: {width}x{height} px, its list says {source.size[0]}x{source.size[1]}.")
    own = Tally()
    instances = usable_instances(source, height=height, width=width, tally=own)
    tally.add(own)  # of images that are of use
    # Sorted: which instance comes first is up to the names of the files of their masks.
    known = sorted(json.dumps([i.box, i.run_lengths, i.points, i.point_labels]) for i in instances)
    digest = hashlib.sha256(source.image.read_bytes() + "".join(known).encode()).hexdigest()
    shape = f"{width}x{height}".encode()
    return Inspection(
        source, height, width, look_of(pixels), hashlib.sha256(shape + pixels.tobytes()).hexdigest(), digest, instances
    )


def refuse_stack(path: Path) -> None:
    """Refuse a TIFF of several pages: which one the annotations are of is not in the file."""
    try:
        with Image.open(path) as image:
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    except (UnidentifiedImageError, OSError, ValueError):
        return  # the reader tells what it is
    if pages > 1:
        raise ValueError(f"{path}: a stack of {pages} images, expected one.")


def look_of(pixels: np.ndarray) -> str:
    """Describe an image, uint8 (H, W, 3), by its size, by grey or colour, and by a dark or bright ground."""
    height, width = pixels.shape[:2]
    colour = "grey" if (pixels == pixels[..., :1]).all() else "colour"
    return f"{width}x{height} {colour} {'bright' if pixels.mean() >= 128 else 'dark'}"


def pool_looks(looks: Sequence[str]) -> list[str]:
    """Pool the looks of fewer than ten images; where ten do not come together, they join the most frequent look."""
    counts = Counter(looks)
    pooled = [look if counts[look] >= SMALLEST_STRATUM else OTHER for look in looks]
    (most, _), *_ = counts.most_common(1)
    if counts[most] >= SMALLEST_STRATUM > pooled.count(OTHER):
        pooled = [most if look == OTHER else look for look in pooled]
    return pooled


def split_strata(groups: Sequence[str], strata: Sequence[str], *, ratios: Sequence[float], seed: int) -> dict[str, str]:
    """Give each group one of the splits, apart for each stratum, which is that of the group's first image."""
    stratum_of: dict[str, str] = {}
    for group, stratum in zip(groups, strata, strict=True):
        stratum_of.setdefault(group, stratum)
    split_of: dict[str, str] = {}
    for stratum in sorted(set(stratum_of.values())):
        sizes = Counter(group for group in groups if stratum_of[group] == stratum)
        split_of |= split_groups(sizes, ratios=ratios, seed=seed)
    return split_of


def identical_pairs(hashes: Sequence[str]) -> list[tuple[int, int]]:
    """Pair each image with the first one that has the same hash, by their places."""
    first: dict[str, int] = {}
    places = [first.setdefault(digest, k) for k, digest in enumerate(hashes)]
    return [(place, k) for k, place in enumerate(places) if place != k]


def number(ids: Sequence[int | None]) -> list[int]:
    """Keep the ids of a data set where all have one of their own from 1 on, or else count from 1."""
    own = [value for value in ids if value is not None and value > 0]
    return own if len(set(own)) == len(ids) else list(range(1, len(ids) + 1))


def as_coco(
    images: Sequence[Inspection], numbers: Sequence[int], *, data: InstanceSet, root: Path, points: int, seed: int
) -> dict[str, Any]:
    """Make a COCO list of images and their instances; the points of one are seeded by its id."""
    pairs = [(image_id, i) for image, image_id in zip(images, numbers, strict=True) for i in image.instances]
    ids = number([instance.id for _, instance in pairs])
    annotations = []
    for (image_id, instance), own_id in zip(pairs, ids, strict=True):
        coordinates, labels = with_points(instance, n=points, seed=(seed, own_id))
        mask = {} if instance.run_lengths is None else {"segmentation": instance.run_lengths}
        annotations.append(
            {
                "id": own_id,
                "image_id": image_id,
                "category_id": 1,
                "bbox": list(instance.box),
                "area": instance.area,
                "iscrowd": 0,
                **mask,
                "point_coords": coordinates,
                "point_labels": labels,
            }
        )
    entries = [
        {
            "id": image_id,
            "file_name": image.source.image.relative_to(root).as_posix(),
            "width": image.width,
            "height": image.height,
        }
        for image, image_id in zip(images, numbers, strict=True)
    ]
    return {
        "info": {"description": data.description, "points": points, "seed": seed},
        "licenses": [{"id": 1, "name": data.licence, "url": ""}],
        "categories": [{"id": 1, "name": "cell"}],
        "images": entries,
        "annotations": annotations,
    }


def _lines(
    data: InstanceSet, splits: Mapping[str, Sequence[Any]], strata: Sequence[str], duplicates: Sequence[Any]
) -> list[str]:
    counts = ", ".join(f"{len(items)} {name}" for name, items in splits.items())
    lines = [f"{data.name}: {counts}; {len(duplicates)} duplicates, each in the split of its first"]
    if data.by_look:
        lines.append(f"split apart: {', '.join(f'{n} {name}' for name, n in Counter(strata).most_common())}")
    return lines


def _summary(count: int, images: Sequence[Inspection], omitted: Omissions, tally: Tally, *, points: int) -> str:
    """Sum up in one line: all images and instances, those that are used, and those left out with the reasons."""
    used, empty = sum(len(image.instances) for image in images), sum(not image.instances for image in images)
    notes = [str(note) for note in (tally.cut, tally.points) if note.counts]
    return (
        f"{count} images came in, {len(images)} are used ({empty} of them without an instance), {omitted.total()} are "
        f"left out{f' ({omitted})' if omitted.counts else ''}; {tally.annotations} instances came in, {used} are used "
        f"with {points} points, {tally.omitted.total()} are left out"
        f"{f' ({tally.omitted})' if tally.omitted.counts else ''}{''.join(f'; {note}' for note in notes)}"
    )
