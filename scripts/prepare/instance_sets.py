"""Images with instances of one's own: COCO lists, or label maps beside the images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from clinbundles.transforms.readers.coco import CocoList, read_coco
from clinbundles.transforms.readers.folder import image_stem, is_image

from .annotations import AnnotatedImage, Annotation, InstanceSet, annotation_of, label_map_annotations
from .folders import compile_pattern, patient_of
from .pairs import Record, pair_by_name, read_label_map

# What the name of a list or of a folder says about the split.
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
# As Cellpose names the label map of a.png, and in its own data set that of 000_img.png.
LABEL_MAP_ENDINGS = ("_cp_masks", "_masks")
IMAGE_ENDING = "_img"


def coco(
    root: Path,
    *,
    annotations: str | None = None,
    images: str | None = None,
    label: str = "cell",
    modality: str = "microscopy",
) -> InstanceSet:
    """COCO lists with masks (polygons or run lengths), or boxes with points on and beside the cell, or boxes alone.

    All categories become one. Lists with train, val and test in their names make an official split.

    Args:
        root: folder that holds all.
        annotations: a file, or the list or lists in root, such as annotations/*.json; without it, those in
            annotations/, or in root.
        images: folder that the file names start from; without it, they are also looked for by name in all of root.
        label: what an instance is, such as nucleus.
        modality: how the images were taken, such as "fluorescence microscopy".
    """
    paths = find_lists(root, annotations)
    folder = root / images if images else root
    if not folder.is_dir() or not folder.is_relative_to(root):
        raise FileNotFoundError(f"--images {images}: no such folder in {root}")
    lists = [read_coco(path) for path in paths]
    for content in lists:
        refuse_corners(content)
    return InstanceSet(
        name=root.resolve().name,
        description=f"Images with instances ({label})",
        licence="not stated",
        label=label,
        modality=modality,
        images=list(coco_images(lists, folder)),
    )


def instance_maps(
    root: Path, *, label: str = "cell", modality: str = "microscopy", patient_pattern: str | None = None
) -> InstanceSet:
    r"""Label maps, one number an instance: images/ and masks/ with the same names, or IMG.png beside IMG_masks.png.

    These may also be in folders train, val and test, which make an official split. Numbers may be missing.

    Args:
        root: the folder.
        label: what an instance is, such as nucleus.
        modality: how the images were taken, such as "fluorescence microscopy".
        patient_pattern: regular expression that an image's name begins with, whose first group is the patient, the
            slide or the plate, such as "(\d+)_"; without it every image counts as one of its own.
    """
    pairs = [(pair, split) for folder, split in split_folders(root) for pair in label_map_pairs(folder)]
    if not any(pair.image and pair.label for pair, _ in pairs):
        raise FileNotFoundError(f"{root}: no folder images/ and masks/ here, and no image beside a label map *_masks.")
    pattern = None if patient_pattern is None else compile_pattern(patient_pattern)
    if pattern is None:
        print("every image counts as a patient of its own: --patient_pattern finds the patient in its name")
    return InstanceSet(
        name=root.resolve().name,
        description=f"Images with instances ({label})",
        licence="not stated",
        label=label,
        modality=modality,
        images=[
            AnnotatedImage(
                p.path,
                p.path.relative_to(root).as_posix() if pattern is None else patient_of(p.path, pattern),
                partial(instances_of_map, p.label or p.path),
                split=split,
                fault=p.missing(),
            )
            for p, split in pairs
        ],
    )


def find_lists(root: Path, annotations: str | None) -> list[Path]:
    """Find the COCO lists of a data set.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several, and their names tell no splits.
    """
    if annotations is not None:
        at = Path(annotations)
        # A list of a person's points may lie anywhere, and is named as it is seen from the current folder.
        paths = [at] if at.is_file() else [] if at.is_absolute() else sorted(root.glob(annotations))
        if not paths:
            raise FileNotFoundError(f"--annotations {annotations}: no such file in {root}")
        return paths
    paths = sorted((root / "annotations").rglob("[!.]*.json")) or sorted(root.glob("[!.]*.json"))
    if not paths:
        raise FileNotFoundError(f"{root}: no folder annotations with a COCO list here, and none beside it.")
    if len(paths) > 1 and not all(split_named(path.stem) for path in paths):
        raise ValueError(f"{root}: {len(paths)} lists here, the first is {paths[0].name}: --annotations says which.")
    return paths


def split_named(name: str) -> str | None:
    """The split that a name tells, such as livecell_coco_val or train2017."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word in (*SPLIT_NAMES, "training", "validation")]
    return SPLIT_NAMES[re.sub("(ing|idation)$", "", words[-1])] if words else None


def refuse_corners(content: CocoList) -> None:
    """Refuse a list whose boxes are corners x1, y1, x2, y2: most then leave their image as x, y, width, height.

    Raises:
        ValueError: it is so.
    """
    count = leaving = 0
    for image_id, entries in content.annotations.items():
        image = content.images[image_id]
        for entry in entries:
            box = entry.get("bbox")
            if isinstance(box, list) and len(box) == 4 and all(type(n) in (int, float) for n in box):
                count += 1
                leaving += box[0] + box[2] > image["width"] + 1 or box[1] + box[3] > image["height"] + 1
    if leaving > count / 2:
        raise ValueError(
            f"{content.path}: {leaving} of {count} boxes leave their image, so they are no x, y, width, height: are "
            "they corners x1, y1, x2, y2?"
        )


def coco_images(lists: Iterable[CocoList], folder: Path) -> Iterator[AnnotatedImage]:
    """Take the images of COCO lists with their annotations; a file is found by its path, or else by its name alone.

    Raises:
        ValueError: two files go by the name of a missing one.
    """
    by_name: dict[str, list[Path]] | None = None
    for content in lists:
        for image_id, entry in content.images.items():
            name = str(entry["file_name"])
            path, fault = folder / name, None
            if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
                by_name = files_by_name(folder) if by_name is None else by_name
                matches = by_name.get(Path(name).name, [])
                if len(matches) > 1:
                    raise ValueError(f"{content.path}: {name} may be {matches[0]} or {matches[1]}.")
                path = matches[0] if matches else folder / Path(name).name
                fault = None if matches else f"{content.path}: {name} is not below {folder}."
            yield AnnotatedImage(
                path,
                path.relative_to(folder).as_posix(),
                partial(map, annotation_of, content.annotations[image_id]),
                size=(entry["width"], entry["height"]),
                split=split_named(content.path.stem),
                fault=fault,
                id=image_id if type(image_id) is int else None,
            )


def files_by_name(folder: Path) -> dict[str, list[Path]]:
    """List the files of a folder and those below by their names."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("[!.]*")):
        if path.is_file():
            files.setdefault(path.name, []).append(path)
    return files


def split_folders(root: Path) -> list[tuple[Path, str | None]]:
    """List the folders train, val and test of a data set with their splits; without any, the folder itself."""
    folders = [(path, split_named(path.name)) for path in sorted(root.iterdir()) if path.is_dir()]
    return [(path, split) for path, split in folders if split] or [(root, None)]


def label_map_pairs(folder: Path) -> Iterator[Record]:
    """Pair images with label maps, in two folders or side by side, in name order."""
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        endings = {ending for ending in LABEL_MAP_ENDINGS for p in (folder / "masks").glob(f"*{ending}.*") if p}
        yield from pair_by_name(folder / "images", folder / "masks", mask_ending=max(endings, key=len, default=""))
        return
    files = {image_stem(path): path for path in sorted(folder.iterdir()) if is_image(path)}
    maps: dict[str, Path] = {}
    for stem, path in files.items():
        ending = next((ending for ending in LABEL_MAP_ENDINGS if stem.endswith(ending)), None)
        if ending:
            maps[stem.removesuffix(ending)] = path
    images = {stem.removesuffix(IMAGE_ENDING): p for stem, p in files.items() if p not in maps.values()}
    for stem in sorted(images.keys() | maps.keys()):
        yield Record(images.get(stem), maps.get(stem), stem)


def instances_of_map(path: Path) -> Iterator[Annotation]:
    """Read a label map, and take each of its numbers for an instance.

    Raises:
        ValueError: the file is no label map.
    """
    try:
        yield from label_map_annotations(read_label_map(path))
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}.") from error
