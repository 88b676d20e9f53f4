"""Segment an image that is too large for the memory by a bundle's network.

clinbundles segment-large two_stage_segmentation slide.tif mask.zarr
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import zarr
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform

from clinbundles.scripts.bundle import config_files, find_bundle, load_network, open_configs
from clinbundles.scripts.large_image.opening import open_large_image
from clinbundles.scripts.large_image.preview import LONGEST_SIDE, preview_path, write_preview
from clinbundles.scripts.large_image.pyramid import is_own_tiff, write_tiff
from clinbundles.scripts.large_image.segment import check_intensity_range, segment_large_image

FORMATS = ("ome-zarr", "tiff")
# What a bundle's preprocessing does with an image: to every pixel by itself, or to a file, a size or a key. The first
# is done to every window too, the second has no meaning there; the scaling to [0, 1] is --intensity_range.
POINTWISE = {"NormalizeIntensityd", "ColorSpaced"}
NOT_OF_PIXELS = {"LoadImaged", "StrictLoadImaged", "EnsureChannelFirstd", "EnsureTyped", "CastToTyped", "Resized"}
NOT_OF_PIXELS |= {
    "IntensityRangeCheckd",
    "DivisiblePadd",
    "GazeToAttentionMapd",
    "DeleteItemsd",
    "SelectItemsd",
    "ScaleIntensityRanged",
}


def segment(
    bundle: str,
    image: str,
    output: str,
    *,
    ckpt_path: str | None = None,
    window: int | None = None,
    overlap: int = 128,
    level: int = 0,
    series: int | None = None,
    max_memory_gb: float = 4.0,
    format: str | None = None,
    device: str | None = None,
    threshold: float = 0.5,
    intensity_range: tuple[float, float] | None = None,
    skip_blank: bool = False,
    keep_probability: bool = False,
    restart: bool = False,
    knobs: dict[str, Any] | None = None,
    **more_knobs: Any,
) -> None:
    """Segment a tiled TIFF, SVS, zarr or OME-NGFF image; its mask of 0 and 1 becomes OME-NGFF 0.5 or tiled TIFF.

    The network, its checkpoint and what the preprocessing does to every pixel come from the bundle's inference.json;
    the image keeps its size: choose --level for the scale that the network was trained on. A killed run goes on when
    started again with the same flags. Beside the result, <name>_preview.png shows image and outline, 1024 px at most.

    Args:
        bundle: name of a bundle, in ./bundles or in the checkout of this project, or a folder.
        image: file or folder; axes YX, YXC, YXS, CYX or SYX. Grey images become RGB where the network wants that.
        output: folder (ome-zarr) or file (tiff).
        ckpt_path: weights of the network; the bundle's own by default.
        window: side in pixels of what the network sees at a time; the largest that the memory allows by default.
        overlap: margin of the window in pixels that is cut off again.
        level: level of the image's pyramid, 0 for full resolution.
        series: number of the image in a file or folder with several; the largest of a TIFF file by default.
        max_memory_gb: memory that this process, and the GPU, may hold, in 10^9 bytes.
        format: ome-zarr or tiff; by the suffix of the output if not given.
        device: cpu, cuda or cuda:1; a GPU by default where there is one.
        threshold: probability from which a pixel belongs to the mask.
        intensity_range: low,high: the pixel values that become 0 and 1; 0,255 for 8-bit images, needed for others.
        skip_blank: windows of one constant colour are background.
        keep_probability: also write the probability times 255.
        restart: replace an earlier result.
        knobs: values of inference.json whose names are flags here too, as --knobs '{"overlap": 0.25}'.
        more_knobs: any others that the network is built by, such as --n_patches 8 or --channels 4,8,16,32,64.
    """
    result = Path(str(output))
    if format is None:
        format = "tiff" if result.suffix.lower() in (".tif", ".tiff") else "ome-zarr"
    if format not in FORMATS:
        raise ValueError(f"--format is {format}, expected {' or '.join(FORMATS)}.")
    if result.resolve() == Path(str(image)).resolve():
        raise ValueError(f"{result} is the image itself, which its mask would replace: choose another output.")
    folder = result if format == "ome-zarr" else result.with_name(result.name + ".zarr")
    if format == "tiff" and result.exists() and not restart:
        raise FileExistsError(f"{result} exists: use --restart to replace it.")
    if format == "tiff" and result.exists() and not is_own_tiff(result):
        raise FileExistsError(f"{result} exists and is no result of this command: choose another output.")
    preview = preview_path(result)
    if preview.resolve() == Path(str(image)).resolve():
        raise ValueError(f"{preview} is the image itself, which its preview would replace: choose another output.")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with open_large_image(str(image), level=level, series=series) as opened:
        if opened.place:
            print(f"{opened.name}: {opened.place}, {opened.shape[1]} x {opened.shape[2]} px")
        predict, settings = bundle_predictor(
            find_bundle(bundle),
            where,
            {**(knobs or {}), **more_knobs},
            image_channels=opened.shape[0],
            ckpt_path=ckpt_path,
        )
        segment_large_image(
            opened,
            folder,
            predict,
            window=window,
            overlap=overlap,
            max_memory_gb=max_memory_gb,
            device=where,
            threshold=threshold,
            intensity_range=intensity_range,
            skip_blank=skip_blank,
            keep_probability=keep_probability,
            settings={**settings, "level": level, "series": series},
            restart=restart,
        )
        black_and_white = check_intensity_range(opened, intensity_range)
        with open_large_image(str(image), level=_overview_level(str(image), level, series), series=series) as overview:
            write_preview(overview, zarr.open_group(folder, mode="r"), preview, intensity_range=black_and_white)
        if format == "tiff":
            _as_tiff(folder, result, opened.pixel_size_um)
    print(result)
    print(preview)


def _overview_level(image: str, level: int, series: int | None) -> int:
    """Find the level of an image's pyramid, from ``level`` on, whose longest side is the last of 1024 px or more."""
    while True:
        try:
            with open_large_image(image, level=level + 1, series=series) as smaller:
                if max(smaller.shape[1:]) < LONGEST_SIDE:
                    return level
        except ValueError:  # there is none
            return level
        level += 1


def _as_tiff(folder: Path, result: Path, pixel_size_um: tuple[float, float] | None) -> None:
    """Write the TIFF file, and <name>_probability beside it, then remove the folder they came from."""
    group = zarr.open_group(folder, mode="r")
    if "probability" in group:
        probability: Any = group["probability"]
        write_tiff(
            probability, result.with_name(f"{result.stem}_probability{result.suffix}"), pixel_size_um=pixel_size_um
        )
    write_tiff(group, result, pixel_size_um=pixel_size_um)
    shutil.rmtree(folder)


def bundle_predictor(
    bundle: Path, device: torch.device, knobs: dict[str, Any], *, image_channels: int, ckpt_path: str | None
) -> tuple[Callable[[torch.Tensor], torch.Tensor], dict[str, Any]]:
    """Make a bundle's function from windows (1, C, h, w) in [0, 1] to logits, and list the settings that decide them.

    Raises:
        FileNotFoundError: no inference.json or no weights.
        ValueError: a network that numbers instances, an unknown option, weights that do not fit, channels that do not,
            or a preprocessing that cannot be done window by window.
    """
    [config] = config_files(bundle, ["inference"])
    given = {"ckpt_path": str(ckpt_path)} if ckpt_path is not None else {}
    parser = open_configs(bundle, ["inference"], **knobs, **given)
    parser.get_parsed_content("initialize")
    network = load_network(parser).to(device)
    if hasattr(network, "detections"):
        raise ValueError(
            f"{bundle.name}: its network numbers instances and marks no mask; clinbundles run {bundle.name} inference "
            "takes large images tile by tile."
        )
    steps = pointwise_steps(parser.get_parsed_content("preprocessing"), config)
    wanted = parser.get("in_channels")
    if wanted is None:
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
        wanted = metadata["network_data_format"]["inputs"]["image"]["num_channels"]
    if any(type(step).__name__ == "TorchVisiond" for step in steps):
        wanted = 3  # and the step makes them grey
    if image_channels not in (1, wanted):
        raise ValueError(f"the image has {image_channels} channels, expected 1 or {wanted}.")

    def predict(pixels: torch.Tensor) -> torch.Tensor:
        item: dict[str, Any] = {"image": MetaTensor(pixels[0].expand(wanted, -1, -1))}
        for step in steps:
            item = step(item)
        return network(item["image"].as_tensor()[None].to(device))

    settings = {
        "weights_sha256": hashlib.sha256(Path(parser.get_parsed_content("ckpt_path")).read_bytes()).hexdigest(),
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest(),
        "knobs": {key: knobs[key] for key in sorted(knobs)},
    }
    return predict, settings


def pointwise_steps(preprocessing: Compose, config: Path) -> list[MapTransform]:
    """Return those steps of a preprocessing that change every pixel by itself.

    Raises:
        ValueError: a step that needs the whole image, or that is not known to need it or not.
    """
    steps = []
    for step in preprocessing.transforms:
        name = type(step).__name__
        if name == "NormalizeIntensityd" and step.normalizer.subtrahend is None:
            name += " by the image's own mean"
        if name in POINTWISE or (name == "TorchVisiond" and type(step.trans.trans).__name__ == "Grayscale"):
            steps.append(step)
        elif name not in NOT_OF_PIXELS:
            raise ValueError(f"{config}: preprocessing has {name}, which cannot be done window by window.")
    return steps
