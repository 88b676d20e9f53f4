"""A bundle as one zip that runs where this project is not installed.

clinbundles pack gaze_polyp_segmentation
clinbundles pack --all --out dist
clinbundles pack covid_xray_transfer --runtime onnx
clinbundles pack covid_xray_transfer --profile pure
clinbundles pack gaze_polyp_segmentation --ckpt_path runs/gaze_polyp_segmentation/train/model.pt --out dist_mine

"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import zipfile
from collections.abc import Mapping
from importlib import metadata as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clinbundles.engines.outputs.files import write_atomically
from clinbundles.scripts.bars import say
from clinbundles.scripts.bundle import ROOT, config_files, config_names, find_bundle
from clinbundles.scripts.next_command import called_by_monai
from clinbundles.scripts.pack.archive import DAMAGE, as_json, zipped
from clinbundles.scripts.pack.closure import FINDER, NAME, carried_modules, package_stem
from clinbundles.scripts.pack.export import CONFIG, FILE, export_onnx, overlay
from clinbundles.scripts.pack.machine_paths import check_machine_paths
from clinbundles.scripts.pack.metadata import PATH, TEXTS, read_metadata
from clinbundles.scripts.pack.own_weights import with_own_weights
from clinbundles.scripts.pack.pure import pure_files
from clinbundles.scripts.pack.sbom import bill_of_materials, requirements

FOLDERS = ("configs", "docs", "models", "samples")
RUNTIMES = ("eager", "onnx")
PROFILES = ("full", "pure")
MODEL_INFO = "model_info.json"
# What `clinbundles reproduce` alone reads, and what desktops and editors leave behind.
LEFT_OUT = re.compile(r"reproduce\.json|Thumbs\.db|desktop\.ini|.*~|.*\.(bak|orig|rej|swp)")
# Where people put images.
PICTURES = ("samples", "docs")
PAGE = "docs/README.md"
ANOTHER = "give another --version, or another --out."
# The end of a zip's page.
ENDING = """
## This zip

Where Python has nothing of it yet, in this folder:

```bash
pip install -r requirements.txt
python -m monai.bundle run --config_file configs/inference.json --dataset_dir DIR --output_dir OUT
```

## The network in Python

MONAI's `load` does not tell a config where it lies, so one says it. DIR is any folder; without `url` the unzipped
bundle has to be in it.

    monai.bundle.{call}
"""


def pack(
    bundle: str | None = None,
    *,
    all: bool = False,
    out: str = "dist",
    runtime: str = "eager",
    profile: str = "full",
    ckpt_path: str | None = None,
    version: str | None = None,
) -> None:
    """Write NAME_vVERSION.zip of a bundle: configs, weights, samples, docs, and the code that the configs name.

    Unzipped, it runs with ``python -m monai.bundle run`` from its folder where this project is not installed. Its code
    lies below ``scripts/``, in a package of the bundle's name and the code's hash, so that two bundles, or two releases
    of one, do not run each other's code in one process, nor that of another package called ``scripts``. The same input
    gives the same bytes. ``model_info.json`` beside the zips has the checksum of each.

    Args:
        bundle: name of a bundle, in ./bundles or in the checkout of this project, or a folder.
        all: pack every bundle of the checkout.
        out: folder of the zips; made if it does not exist.
        runtime: "onnx" adds the network exported to ONNX, whose results are compared with those of the network itself,
            and the config inference_onnx that runs it on a CPU; "eager" adds nothing.
        profile: "pure" packs inference alone as NAME_pure_vVERSION.zip, without Python: MONAI's own transforms and the
            network as TorchScript, for hosts that refuse a bundle's code; "full" packs everything. It is TorchScript
            because MONAI's own hosts load that without Python code and with sizes that vary, and do not load the
            archive of torch.export.
        ckpt_path: weights of your own in place of the shipped ones, such as runs/BUNDLE/train/model.pt, with the card
            model.json beside them; the configs of the zip get the options that it names, and its pages say so. A card
            that lacks one that inference compares with it is refused.
        version: of a zip with weights of your own, such as 0.1.0+mine; without it the bundle's, with digits of the
            weights and their card behind a plus.
    """
    if version is not None and ckpt_path is None:
        raise ValueError("--version is for a zip with weights of your own: give --ckpt_path, too.")
    if ckpt_path is not None and all:
        raise ValueError("--ckpt_path is for the weights of one bundle: say which, and leave --all out.")
    if profile not in PROFILES:
        raise ValueError(f"--profile is {profile!r}, expected one of {', '.join(PROFILES)}.")
    if profile == "pure" and runtime != "eager":
        raise ValueError("--profile pure has no Python that would run another runtime: leave --runtime out.")
    if runtime not in RUNTIMES:
        raise ValueError(f"--runtime is {runtime!r}, expected one of {', '.join(RUNTIMES)}.")
    if (bundle is None) != all:
        raise ValueError("say which bundle to pack, by its name or folder, or --all.")
    folders = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json")) if all else []
    folders = folders or [find_bundle(str(bundle))]
    target = Path(out)
    _read_model_info(target / MODEL_INFO)  # before the work of packing
    if ckpt_path is not None and version is not None:
        form = "_pure" if profile == "pure" else ""
        _check_weights(target / f"{folders[0].resolve().name}{form}_v{version}.zip", Path(ckpt_path))
    packed = {}
    for number, folder in enumerate(folders, start=1):
        name, content = packed_bundle(folder, runtime=runtime, profile=profile, weights=ckpt_path, own_version=version)
        file = target / f"{name}.zip"
        if ckpt_path is not None and file.is_file() and file.read_bytes() != content:
            raise ValueError(f"{file}: is there, with other contents: {ANOTHER}")
        packed[name] = content
        say(f"packed {number} of {len(folders)}: {name}, {len(content) / 1e6:.1f} MB")
    entries = _read_model_info(target / MODEL_INFO)
    target.mkdir(parents=True, exist_ok=True)
    for name, content in packed.items():
        write_atomically(target / f"{name}.zip", content)
    entries |= checksums(packed)
    write_atomically(target / MODEL_INFO, json.dumps(dict(sorted(entries.items())), indent=2) + "\n")
    print(f"{len(packed)} zips and model_info.json: {target}")


def packed_bundle(
    folder: Path,
    *,
    runtime: str = "eager",
    profile: str = "full",
    weights: str | None = None,
    own_version: str | None = None,
) -> tuple[str, bytes]:
    """Return the versioned name of a bundle's zip, and its bytes.

    Raises:
        FileNotFoundError: the bundle has no weights.
        ValueError: its metadata has no version; a text of the bundle names a folder of this machine; the exported
            network gives other results; own weights, or their version, are refused by
            :func:`.own_weights.with_own_weights`.
    """
    name = folder.resolve().name
    files = bundle_files(folder)
    metadata = read_metadata(files.get(PATH), name, texts=TEXTS if profile == "pure" else ())
    if weights is not None:
        with_own = with_own_weights(folder, files, Path(weights), own_version)
        with TemporaryDirectory() as scratch:
            copy = Path(scratch) / name
            for path, content in with_own.items():
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                (copy / path).write_bytes(content)
            return packed_bundle(copy, runtime=runtime, profile=profile)
    if not (folder / "models" / "model.pt").is_file():
        raise FileNotFoundError(f"{folder / 'models' / 'model.pt'}: no weights, and a zip without them runs nothing.")
    if profile == "pure":
        files = pure_files(folder, files)
        metadata = json.loads(files[PATH])
        name = f"{name}_pure"
    if runtime == "onnx":
        files |= _with_onnx(folder, files)
        metadata["required_packages_version"]["onnxruntime"] = installed.version("onnxruntime")
        files[PATH] = as_json(metadata)
    texts = {path: content.decode("utf-8") for path, content in files.items() if _is_config(path)}
    code = {
        file.relative_to(ROOT).as_posix(): file.read_bytes() for file in carried_modules(texts.values(), ROOT).values()
    }
    own = own_package(name, code)
    of_configs = {
        each: [f"configs/{file.name}" for file in config_files(folder, [each])] for each in config_names(folder)
    }
    for path, text in texts.items():
        files[path] = called_by_monai(NAME.sub(rf"{own}\1", text), of_configs).encode()
    files |= {f"scripts/{own}/{path}": content for path, content in code.items()}
    files |= {f"{own}.py": FINDER.encode()} if code else {}
    for path, content in files.items():
        check_machine_paths(f"{name}/{path}", content)
    title = f"{name}_v{metadata['version']}"
    ending = ENDING.format(call=load_call(name, url=f"file:///PATH/{title}.zip"))
    files[PAGE] = files.get(PAGE, b"") + ending.encode()
    files["requirements.txt"] = requirements(metadata).encode()
    files["sbom.cdx.json"] = bill_of_materials(name, metadata, files).encode()
    return title, zipped({f"{name}/{path}": content for path, content in files.items()})


def _check_weights(file: Path, weights: Path) -> None:
    """Refuse weights for a zip that is there with others, before the work of packing; one that is torn is left to it.

    Args:
        file: of the zip.
        weights: file of a state dict.
    """
    if not (file.is_file() and weights.is_file()):
        return
    folder = file.stem.rpartition("_v")[0]
    try:
        with zipfile.ZipFile(file) as archive:
            card = json.loads(archive.read(f"{folder}/models/model.json"))
    except (*DAMAGE, KeyError, ValueError, OSError):
        return
    names = ("exported_from_sha256", "weights_sha256")  # of the pure form, whose file is another
    digests = [card[name] for name in names if name in card] if isinstance(card, dict) else []
    if digests and digests[0] != hashlib.sha256(weights.read_bytes()).hexdigest():
        raise ValueError(f"{file}: is there, with other weights: {ANOTHER}")


def load_call(name: str, *, url: str | None = None) -> str:
    """Give the call of MONAI's ``load`` for the network of a zip, in a folder DIR.

    Args:
        name: of the bundle in the zip.
        url: where the zip is, to be fetched.
    """
    told = {"url": url} if url else {}
    # TorchScript has its network without a config.
    is_pure = name.endswith("_pure")
    told |= {} if is_pure else {"bundle_root": f"DIR/{name}"}
    words = [json.dumps(name), 'bundle_dir="DIR"', *(["load_ts_module=True"] if is_pure else [])]
    words += [f"args_file={json.dumps(told)}"] if told else []
    return f"load({', '.join(words)}){'[0]' if is_pure else ''}"


def own_package(name: str, code: Mapping[str, bytes]) -> str:
    """Name the package of a zip's code by the bundle and what the code is: of two releases in a process, each has one.

    Args:
        name: of the bundle.
        code: contents of its modules by path.
    """
    each = {path: hashlib.sha256(content).hexdigest() for path, content in code.items()}
    return f"{package_stem(name)}_{hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()[:8]}"


def _with_onnx(folder: Path, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Export a bundle's network, and return the file, its card and its config by their paths."""
    name = folder.resolve().name
    content, difference = export_onnx(folder)
    say(f"{name}: exported to ONNX; a probability differs by {difference:.1e} at most.")
    card = json.loads(files.get("models/model.json", b"{}"))
    card |= {
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "exported_from_sha256": hashlib.sha256(files["models/model.pt"]).hexdigest(),
        "largest_difference_of_a_probability": float(f"{difference:.1e}"),
    }
    return {
        FILE: content,
        str(Path(FILE).with_suffix(".json")): as_json(card),
        f"configs/{CONFIG}.json": as_json(overlay(folder)),
    }


def bundle_files(folder: Path) -> dict[str, bytes]:
    """Read what a zip takes of a bundle's folder, by path in it: no hidden file, nothing of Python's caches.

    Of a bundle in a checkout, images and pages that git does not know stay out, and how many is said: they may be a
    patient's.

    Raises:
        ValueError: one is a link, which may lead to what nobody wants in a zip.
    """
    tops = [folder / each for each in FOLDERS]
    paths = [folder / "LICENSE", *tops, *(path for top in tops for path in sorted(top.rglob("*")))]
    files = {}
    for path in paths:
        inside = path.relative_to(folder)
        hidden = any(part.startswith((".", "__")) for part in inside.parts)
        if path.is_symlink() and not hidden:
            raise ValueError(
                f"{folder.name}/{inside.as_posix()}: is a link, and a zip would hold what it leads to: put a copy."
            )
        if path.is_file() and not hidden and not LEFT_OUT.fullmatch(path.name):
            files[inside.as_posix()] = path.read_bytes()
    if strays := _strays(folder) & set(files):
        files = {name: content for name, content in files.items() if name not in strays}
        places = " and ".join(PICTURES)
        say(f"{folder.name}: left out {len(strays)} of {places}, which git does not know; git add takes them in.")
    tracking = ROOT / "mlflow" / "tracking.json"
    if tracking.is_file():
        files["configs/tracking.json"] = tracking.read_bytes()
    return files


def _strays(folder: Path) -> set[str]:
    """Name the files among a bundle's images and pages that git does not know; none where it knows no bundle there."""
    # A bundle of a stranger may have a .git of its own, whose settings could name a program.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), "ls-files", "-z"]
    try:
        subprocess.run([*command, "--error-unmatch", "--", PATH], capture_output=True, check=True)
        listed = subprocess.run([*command, "--others", "--", *PICTURES], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return set()
    return {name for name in os.fsdecode(listed).split("\0") if name}


def _is_config(path: str) -> bool:
    return path.startswith("configs/") and path.endswith(".json")


def checksums(packed: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """Make the entries of zips for ``model_info.json``, by name."""
    return {
        name: {
            "checksum": hashlib.sha1(content, usedforsecurity=False).hexdigest(),  # what MONAI's download compares
            "sha256": hashlib.sha256(content).hexdigest(),
            "source": f"{name}.zip",
        }
        for name, content in packed.items()
    }


def _read_model_info(path: Path) -> dict[str, Any]:
    """Read the entries of zips that were packed before; none where there is no file."""
    if not path.is_file():
        return {}
    way_out = "mend it or move it away, and pack again; nothing was written."
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({error}): {way_out}") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError(f"{path}: is no object with an entry for each zip: {way_out}")
    return entries
