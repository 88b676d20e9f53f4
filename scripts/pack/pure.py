"""The inference of a bundle without Python of its own: MONAI's transforms, and the network as TorchScript.

Hosts that refuse a bundle's code take it. What MONAI has no transform for is left out where it changes no result, and
refused where it would: files of one kind alone are read, and nothing says what is wrong with another.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from monai.data import save_net_with_metadata

from clinbundles.engines.sentences import NO_PICTURE, sentence_of
from clinbundles.engines.weights_card import weights_sentence
from clinbundles.scripts.bars import say
from clinbundles.scripts.bundle import load_network, names_behind, open_configs, read_configs
from clinbundles.scripts.doctor.code import foreign_code
from clinbundles.scripts.doctor.torchscript import foreign_operators
from clinbundles.scripts.pack.archive import as_json

FILE = "models/model.ts"
# What hosts read, and the engine runs.
ROOTS: tuple[str, ...] = (
    "_desc_",
    "imports",
    "bundle_root",
    "dataset_dir",
    "output_dir",
    "device",
    "network_def",
    "network",
)
ROOTS += ("preprocessing", "inferer", "postprocessing", "dataset", "dataloader", "handlers", "evaluator", "run")
# Transforms that change nothing where a value is this one, or where there is no gaze and the reader is MONAI's.
IDLE: dict[str, tuple[str, Any] | None] = {
    "IntensityRangeCheckd": None,
    "GazeToAttentionMapd": None,
    "AttentionGaussianBlurd": ("blur_at", "train"),
    "ImageRegiond": ("region", "whole"),
    "ColorSpaced": ("color_space", "RGB"),
}
# From the columns first of MONAI's reader to rows first, in steps that can be undone.
TURNED = [
    {"_target_": "Rotate90d", "keys": "image", "k": 1, "spatial_axes": [0, 1]},
    {"_target_": "Flipd", "keys": "image", "spatial_axis": 0},
]
PICTURES, VOLUMES = "*.[jJpP]*[gG]", "*.nii*"
# Pillow makes 8 bits of deeper colours without a word: the first tile that it is about to decode says how, and what is
# stored. A sentence in place of a picture ends the run behind MONAI's reader: a fault within has it try another reader.
IS_DEEP = "'16' in str(image.tile[0][3])"
IS_READ = f"image.tile[0][0] in @decoders and image.mode in @modes and not {IS_DEEP}"
REFUSAL = f"image.mode + (' of 16 bits, ' if {IS_DEEP} else ', ') + str(max(image.size)) + ' px: {NO_PICTURE}'"
SAVED = {"keys": "pred", "output_dir": "@output_dir", "output_postfix": "", "separate_folder": False, "resample": False}
# With the suffix in all names where two images would have one, such as a.jpg and a.png.
SAVED |= {
    "_target_": "SaveImaged",
    "output_dtype": "$np.uint8",
    "output_name_formatter": "$lambda meta, _: {'subject': meta['filename_or_obj'] + ('' if @stems_differ else '.')}",
}
# What becomes of a label map of instances, which MONAI's writer wants with columns first.
INSTANCES = [
    {
        "_target_": "Invertd",
        "keys": "pred",
        "orig_keys": "image",
        "transform": "@preprocessing",
        "nearest_interp": True,
    },
    SAVED | {"output_ext": ".png", "output_dtype": "$np.uint16"},
]
# The images of a folder, and what lies beside them.
FILES = {
    "images": "$[item['image'] for item in @dataset#data]",
    "stems": "$set(image.lower().removesuffix('.gz').rpartition('.')[0] for image in @images)",
    "stems_differ": "$len(@stems) == len(@images)",
    "entries": "$sorted(glob.glob(glob.escape(@dataset_dir) + '/*'))",
    "left_out": "$[entry for entry in @entries if entry not in @images]",
}
PATH_OF = "item['image'].meta['filename_or_obj']"
TITLES = f"@titles if os.path.basename({PATH_OF}) == os.path.basename(@images[0]) else ''"
# Without the folders, as in the table of the full bundle; in double quotes, for a name may hold a comma.
NAME = f"'\"' + os.path.basename({PATH_OF}) + '\"'"
TABLE = {
    "_target_": "ClassificationSaver",
    "output_dir": "@output_dir",
    "filename": "predictions.csv",
    # MONAI's table has no titles of its own: they stand before the name of the first image.
    "batch_transform": f"$lambda items: {{'filename_or_obj': [({TITLES}) + {NAME} + @weights for item in items]}}",
    "output_transform": "$monai.handlers.from_engine(['pred'])",
}


KEPT = ("LICENSE", "configs/logging.conf", "docs/data_license.txt")
PAGE = """# {name}, pure form

Inference alone, without Python of its own: MONAI's transforms and the network as TorchScript, for hosts that refuse a
bundle's code. {warning}

It reads {reads}, and its results are those of the full bundle on them. Other files of the folder are left out, and
their names are printed. What the full bundle does beside that is not here: it reads more kinds of files, refuses images
that are none of its kind, goes on behind a file that cannot be read, which ends this run, and writes overlays and, of
masks too, a table with the hash of the weights. Where two images differ in their suffix alone, all masks have it in
their names.
"""


def is_pure(folder: Path) -> bool:
    """Whether a bundle is the pure form of one: inference alone, its network exported and not beside its weights."""
    return (folder / FILE).is_file() and not (folder / "models" / "model.pt").is_file()


def check_is_full(folder: Path, source: str | Path) -> None:
    """Refuse the pure form of a bundle where the full one is needed: for its reader, its checks and its results.

    Args:
        folder: of the bundle.
        source: what to call it in the message.

    Raises:
        ValueError: it is pure.
    """
    if is_pure(folder):
        raise ValueError(
            f"{source}: is a pure zip, for hosts of others that take no code; give the full one, which "
            "`clinbundles pack` writes without --profile pure."
        )


def pure_inference(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Rewrite a bundle's inference.json with what MONAI has.

    Args:
        content: of the file.
        name: of the bundle.

    Raises:
        ValueError: it has a transform, an inferer or a writer that MONAI has no like of.
    """
    result = dict(copy.deepcopy(content))
    reader = _name_of(result["image_reader"])
    result["pattern"] = VOLUMES if reader == "SliceReader" else PICTURES
    for key in [key for key in result if key.endswith("_transforms")]:
        result[key] = [step for each in result[key] for step in _pure_steps(each, result, name)]
    writer = _name_of(result["writer"])
    if writer not in ("PredictionWriter", "LabelMapWriter", "ClassTableWriter", "InstanceWriter"):
        raise ValueError(f"{name}: has no pure form, for MONAI has nothing that writes what {writer} does.")
    if writer == "InstanceWriter":
        result["postprocessing"] = {"_target_": "Compose", "transforms": copy.deepcopy(INSTANCES)}
        result["evaluator"] |= {"postprocessing": "@postprocessing"}
    steps = result["postprocessing"]["transforms"]
    steps[:] = [step for each in steps for step in _pure_steps(each, result, name)]
    if writer == "PredictionWriter":
        steps.append(SAVED | {"output_ext": ".png", "scale": 255})
    elif writer == "LabelMapWriter":
        steps.append(SAVED | {"output_ext": ".nii.gz"})
    kinds = "NIfTI" if result["pattern"] == VOLUMES else "JPEG or PNG"
    result |= {
        "_desc_": f"python -m monai.bundle run --config_file configs/inference.json: {name} without code of its own.",
        "imports": ["$import glob", "$import os", "$from PIL import ImageOps"],
        "decoders": ["jpeg", "zip"],
        "modes": ["L", "LA", "P", "RGB", "RGBA"],
        "ckpt_path": f"$@bundle_root + '/{FILE}'",
        "exported": {
            "_target_": "monai.data.load_net_with_metadata",
            "filename_prefix_or_stream": "@ckpt_path",
            "map_location": "@device",
        },
        "network_def": "$@exported[0]",
        "network": "$@network_def.to(@device)",
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': p} for p in sorted(glob.glob(glob.escape(@dataset_dir) + '/' + @pattern))]",
            "transform": "@preprocessing",
        },
        **FILES,
        "run": [f"$print('Left out, for {kinds} alone is read:', *@left_out) if @left_out else None", *result["run"]],
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
    }
    if reader == "SliceReader":
        size = ["@image_size", "@image_size"]
        result["inferer"] = {"_target_": "SliceInferer", "roi_size": size, "sw_batch_size": 64, "spatial_dim": 2}
    if writer == "ClassTableWriter":
        result["handlers"].append(TABLE)
        result["titles"] = ",".join(["image", "weights", *result["class_names"]]) + "\n"
        result["weights"] = ","  # of the exported network, which is made later
    names = names_behind(result, ROOTS)  # what no host reads and the engine does not run is left out
    return {name: value for name, value in result.items() if name in names}


def pure_metadata(metadata: Mapping[str, Any], content: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Say in a bundle's metadata what its pure form reads, needs and runs.

    Args:
        metadata: of the bundle.
        content: its pure inference.json.
        digest: SHA-256 of the exported network.
    """
    reads_volumes = content["pattern"] == VOLUMES
    needed = {"fire", "pytorch-ignite", "nibabel" if reads_volumes else "pillow"}
    # A network that finds instances has operations of torchvision, which MONAI imports.
    needed |= {"torchvision"} if "tile_size" in content or "TorchVisiond" in json.dumps(content) else set()
    packages = metadata["required_packages_version"]
    pictures = "jpeg, png (8 bits a channel" + (
        f", up to {content['tile_size']} px a side)" if "tile_size" in content else ")"
    )
    return {
        **{name: value for name, value in metadata.items() if name != "packages_of_options"},
        "required_packages_version": {name: packages[name] for name in packages if name in needed},
        "data_type": "nifti" if reads_volumes else pictures,
        "description": f"{metadata['description']} This is its pure form: inference alone, by MONAI's own transforms.",
        "exported": {"file": FILE, "sha256": digest},
    }


def torchscript(folder: Path) -> bytes:
    """Export the network of a bundle's inference.json, with its weights, to TorchScript: the same bytes each time.

    A process of its own does it: torch writes constants in the order of a set, which depends on the seed of Python's
    hashes, and numbers classes of one name through all that a process exports.

    Args:
        folder: of the bundle.

    Raises:
        ValueError: its network cannot be made, or its weights cannot be loaded.
        RuntimeError: torch cannot export it.
    """
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.ts"
        call = f"from {__name__} import write_torchscript as write; import sys; write(*sys.argv[1:])"
        # -P: nothing of the current folder is imported.
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", call, str(folder), str(file)],
            env=os.environ | {"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.strip()
            raise (RuntimeError if "\n" in said else ValueError)(said)
        return file.read_bytes()


def write_torchscript(folder: str, file: str) -> None:
    """Write the network of a bundle's inference.json as TorchScript, and end the process in a sentence where it cannot.

    Args:
        folder: of the bundle.
        file: to write.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            network = load_network(open_configs(Path(folder), ["inference"], device="cpu"))
    except Exception as error:
        if (sentence := sentence_of(error)) is None:
            raise
        sys.exit(sentence)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and what MONAI and Deploy read
        save_net_with_metadata(torch.jit.script(network), stream, include_config_vals=False)
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(file, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):  # lines of code with their folders on this machine
                target.writestr(zipfile.ZipInfo(entry.filename), source.read(entry))


def pure_files(folder: Path, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Choose and make what the pure zip of a bundle has, by path.

    Args:
        folder: of the bundle.
        files: what its full zip takes of the folder.

    Raises:
        ValueError: as :func:`pure_inference`; or the network does more than compute, which clinbundles predict refuses.
    """
    content = pure_inference(read_configs(folder, ["inference"]), folder.name)
    for line in chain(foreign_code(content, ""), foreign_code(json.loads(files["configs/metadata.json"]), "")):
        raise ValueError(
            f"{folder.name}: has no pure form, for it would run {line}, which clinbundles doctor lists: take that out, "
            "or leave --profile pure out."
        )
    kept = {path: data for path, data in files.items() if path.startswith("samples/") or path in KEPT}
    say(f"{folder.resolve().name}: exporting to TorchScript")
    exported = torchscript(folder)
    with tempfile.NamedTemporaryFile(suffix=".ts") as file:
        file.write(exported)
        file.flush()
        for what in foreign_operators(Path(file.name)):
            raise ValueError(
                f"{folder.resolve().name}: the network as TorchScript {what}, where one computes alone: clinbundles "
                "predict would refuse the zip; give the full one, without --profile pure."
            )
    digest = hashlib.sha256(exported).hexdigest()
    metadata = pure_metadata(json.loads(files["configs/metadata.json"]), content, digest)
    card = json.loads(files.get("models/model.json", b"{}"))
    card |= {
        "weights_sha256": digest,
        "exported_from_sha256": hashlib.sha256(files["models/model.pt"]).hexdigest(),
    }
    if "weights" in content:
        content["weights"] = ',"' + weights_sentence(digest[:12], card, {}).replace('"', '""') + '"'
    reads = metadata["data_type"]
    warning, note = card.get("warning", metadata["intended_use"]), metadata["weights"].get("note") or ""
    warning = note if warning in note else f"{warning} {note}".strip()
    page = PAGE.format(name=metadata["name"], reads=reads, warning=warning)
    return kept | {
        "configs/inference.json": as_json(content),
        "configs/metadata.json": as_json(metadata),
        "docs/README.md": page.encode(),
        str(Path(FILE).with_suffix(".json")): as_json(card),
        FILE: exported,
    }


def _pure_steps(step: Mapping[str, Any], content: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    kind = _name_of(step)
    if kind == "StrictLoadImaged":
        yield from _loading(content, name)
    elif kind == "TolerantInvertd":
        yield {**step, "_target_": "Invertd"}
    elif kind == "ScaleIntensityRanged" and _name_of(content["image_reader"]) == "SliceReader":
        low, high = content["window_hu"]  # which the reader had made 0 and 255
        yield {**step, "a_min": low, "a_max": high}
    elif kind in IDLE:
        if (needs := IDLE[kind]) is not None and content[needs[0]] != needs[1]:
            raise ValueError(f"{name}: has no pure form where {needs[0]} is {content[needs[0]]!r}, which {kind} does.")
    elif "." in step["_target_"]:
        raise ValueError(f"{name}: has no pure form, for MONAI has nothing like {kind}.")
    else:
        yield dict(step)
        if kind == "EnsureChannelFirstd" and content["pattern"] == PICTURES:
            yield from TURNED


def _loading(content: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Read files of one kind with MONAI's reader: pictures of 8 bits, or volumes in NIfTI."""
    reader = content["image_reader"]
    kind = _name_of(reader)
    if kind == "SliceReader":
        yield {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"}
        return
    picture = "ImageOps.exif_transpose(image.convert('RGB'))"
    if kind == "ChestXRayReader":  # decoded at a part of its size
        picture = (
            "(image.draft(image.mode, (2 * @image_size, 2 * @image_size)), "
            "ImageOps.exif_transpose(image.convert('L')))[1]"
        )
    elif kind != "RGBImageReader":
        raise ValueError(f"{name}: has no pure form, for MONAI has nothing like {kind}.")
    is_read, refusal = IS_READ, REFUSAL
    if "tile_size" in content:  # MONAI has nothing that counts a cell of two tiles once
        is_read += " and max(image.size) <= @tile_size"
        refusal += " + ', up to ' + str(@tile_size) + ' px a side'"
    converter = f"$lambda image: {picture} if {is_read} else {refusal}"
    yield {"_target_": "LoadImaged", "keys": "image", "reader": {"_target_": "PILReader", "converter": converter}}


def _name_of(entry: Mapping[str, Any]) -> str:
    return entry["_target_"].rpartition(".")[2]
