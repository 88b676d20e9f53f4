import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image

from clinbundles.scripts import cli
from clinbundles.scripts.bundle import find_bundle, open_configs
from clinbundles.scripts.large_image.opening import open_large_image
from clinbundles.scripts.large_image.run import segment

CONFIG: dict[str, Any] = {
    "imports": ["$import sys"],
    "in_channels": 3,
    "kernel_size": 3,
    "bundle_root": ".",
    "ckpt_path": "$@bundle_root + '/models/model.pt'",
    "network_def": {
        "_target_": "torch.nn.Conv2d",
        "in_channels": "@in_channels",
        "out_channels": 1,
        "kernel_size": "@kernel_size",
        "padding": "$@kernel_size // 2",
    },
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1},
            {"_target_": "Resized", "keys": "image", "spatial_size": [64, 64]},
            {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 0.5, "divisor": 0.5},
        ],
    },
    "initialize": ["$sys.path.insert(0, @bundle_root)"],
    "run": [],
}


@pytest.fixture(scope="module")
def module(load_script) -> ModuleType:
    return load_script("large_image.run")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose network tells whether red is brighter than mid-grey."""
    for folder in ("configs", "models"):
        (tmp_path / "toy" / folder).mkdir(parents=True)
    (tmp_path / "toy/configs/inference.json").write_text(json.dumps(CONFIG))
    red = torch.zeros(1, 3, 3, 3)
    red[0, 0, 1, 1] = 1
    torch.save({"weight": red, "bias": torch.zeros(1)}, tmp_path / "toy/models/model.pt")
    return tmp_path / "toy"


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (700, 900, 3), dtype=np.uint8)
    options: dict[str, Any] = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        tmp_path / "s.tif",
        pixels,
        tile=(256, 256),
        photometric="rgb",
        description="patient X",
        metadata=None,
        **options,
    )
    return tmp_path / "s.tif"


def red_of(slide: Path) -> np.ndarray:
    return tifffile.imread(slide)[..., 0] >= 128


def test_the_command_writes_an_ome_zarr_from_any_folder(bundle: Path, slide: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clinbundles.scripts.cli", "segment-large", str(bundle), "s.tif", "m.zarr"]
    command += ["--window", "384", "--overlap", "64"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "m.zarr" in done.stdout
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "m.zarr" / "0", mode="r")[:], red_of(slide))
    note = (tmp_path / "m.zarr" / "zarr.json").read_text()
    assert json.loads(note)["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [0.5, 0.5]}
    ]
    assert "patient" not in note
    assert "s.tif" not in note


def test_a_tiff_is_written_in_place_of_the_zarr_folder(
    module: ModuleType, bundle: Path, slide: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"window": 320, "overlap": 32, "format": "tiff", "device": "cpu"}
    module.segment(str(bundle), str(slide), str(tmp_path / "m.tif"), keep_probability=True, **options)
    assert {p.name for p in tmp_path.iterdir()} == {"toy", "s.tif", "m.tif", "m_probability.tif", "m_preview.png"}
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "m.tif"), red_of(slide))
    probability = tifffile.imread(tmp_path / "m_probability.tif")
    np.testing.assert_array_equal(probability >= 128, red_of(slide))
    with pytest.raises(FileExistsError, match=r"m.tif exists: use --restart"):
        module.segment(str(bundle), str(slide), str(tmp_path / "m.tif"), **options)


def test_what_is_no_result_of_the_command_is_not_restarted(
    module: ModuleType, bundle: Path, slide: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"window": 320, "overlap": 32, "device": "cpu", "restart": True}
    foreign, folder = tmp_path / "scan.tif", tmp_path / "scan.zarr"
    tifffile.imwrite(foreign, np.ones((64, 64), np.uint8))
    zarr.create_array(folder, data=np.zeros((64, 64), np.uint8))
    before = foreign.read_bytes(), sorted(folder.rglob("*"))
    for output in (foreign, folder):
        with pytest.raises(FileExistsError, match=f"{output.name} exists and is no result of this command"):
            module.segment(str(bundle), str(slide), str(output), **options)
    assert (foreign.read_bytes(), sorted(folder.rglob("*"))) == before
    for name in ("mask.TIF", "mask.TIF", "mask.zarr", "mask.zarr"):  # written, and written anew
        module.segment(str(bundle), str(slide), str(tmp_path / name), **options)
    assert (tmp_path / "mask.TIF").is_file()
    assert (tmp_path / "mask.zarr").is_dir()


def test_grey_images_become_rgb_and_other_channels_are_refused(
    module: ModuleType, bundle: Path, slide: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"window": 320, "overlap": 32, "device": "cpu"}
    tifffile.imwrite(tmp_path / "grey.tif", tifffile.imread(slide)[..., 0], tile=(256, 256))
    module.segment(str(bundle), str(tmp_path / "grey.tif"), str(tmp_path / "g.zarr"), **options)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "g.zarr" / "0", mode="r")[:], red_of(slide))
    zarr.create_array(tmp_path / "five.zarr", data=np.zeros((5, 64, 64), np.uint8), dimension_names=["c", "y", "x"])
    with pytest.raises(ValueError, match="the image has 5 channels, expected 1 or 3"):
        module.segment(str(bundle), str(tmp_path / "five.zarr"), str(tmp_path / "f.zarr"), **options)


def test_knobs_reach_the_network_and_are_part_of_what_a_run_remembers(
    module: ModuleType, bundle: Path, slide: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"window": 320, "overlap": 32, "device": "cpu"}
    with pytest.raises(ValueError, match=r"model.pt: 1 of 2 weights do not fit the network"):
        module.segment(str(bundle), str(slide), str(tmp_path / "m.zarr"), kernel_size=5, **options)
    with pytest.raises(ValueError, match=r"--kernel is no value of inference\.json; did you mean --kernel_size"):
        module.segment(str(bundle), str(slide), str(tmp_path / "m.zarr"), kernel=5, **options)
    module.segment(str(bundle), str(slide), str(tmp_path / "m.zarr"), **options)
    weights = torch.load(bundle / "models/model.pt", weights_only=True)
    torch.save({"weight": -weights["weight"], "bias": weights["bias"]}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"begun with other settings \(weights_sha256 '"):
        module.segment(
            str(bundle), str(slide), str(tmp_path / "m.zarr"), ckpt_path=str(tmp_path / "other.pt"), **options
        )
    with pytest.raises(ValueError, match=r"\(knobs \{\} then, \{'kernel_size': 3\} now"):
        module.segment(str(bundle), str(slide), str(tmp_path / "m.zarr"), knobs={"kernel_size": 3}, **options)


def test_a_network_of_another_width_is_segmented_with_by_its_options(
    module: ModuleType, bundle: Path, slide: Path, tmp_path: Path
) -> None:
    kernel = torch.zeros(1, 3, 5, 5)
    kernel[0, 0, 2, 2] = 1
    torch.save({"weight": kernel, "bias": torch.zeros(1)}, tmp_path / "wide.pt")
    words = ["segment-large", str(bundle), str(slide), str(tmp_path / "m.zarr"), "--window", "320", "--overlap", "32"]
    words += ["--device", "cpu", "--ckpt_path", str(tmp_path / "wide.pt")]
    with pytest.raises(SystemExit, match=r"wide.pt: 1 of 2 weights do not fit .*weight \(1x3x5x5, expected 1x3x3x3\)"):
        cli.main(words)
    cli.main([*words, "--kernel_size", "5"])
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "m.zarr" / "0", mode="r")[:], red_of(slide))


def test_a_shipped_bundle_takes_channels_and_refuses_what_would_change_nothing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((300, 280, 3), np.uint8), tile=(64, 64), photometric="rgb")
    parser = open_configs(find_bundle("two_stage_segmentation"), ["inference"], channels=[2, 4, 4, 4, 4])
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "narrow.pt")
    words = ["segment-large", "two_stage_segmentation", str(tmp_path / "a.tif"), str(tmp_path / "m.zarr")]
    words += ["--window", "256", "--overlap", "32", "--device", "cpu", "--ckpt_path", str(tmp_path / "narrow.pt")]
    for name, value in (("batch_size", "2"), ("precision", "bfloat16"), ("dataset_dir", "/data"), ("chanels", "2")):
        with pytest.raises(SystemExit, match=f"there is no option --{name}"):
            cli.main([*words, f"--{name}", value])
    cli.main([*words, "--channels", "2,4,4,4,4"])
    assert zarr.open_array(tmp_path / "m.zarr" / "0", mode="r").shape == (300, 280)


def test_the_mask_of_a_pyramid_is_that_of_its_level_in_a_plain_file(
    module: ModuleType, bundle: Path, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"window": 320, "overlap": 32, "device": "cpu"}
    pixels = tifffile.imread(slide)
    write: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
    description = "Aperio Image Library v11.2.1\r\n900x700 (128x128)|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(tmp_path / "p.svs") as writer:
        for each in (pixels, pixels[::9, ::9], pixels[::2, ::2]):
            writer.write(each, description=description, **write)
    for level in (0, 1):
        step, names = 2**level, {kind: tmp_path / f"{kind}{level}.zarr" for kind in ("plain", "pyramid")}
        tifffile.imwrite(tmp_path / "plain.tif", pixels[::step, ::step], **write)
        module.segment(str(bundle), str(tmp_path / "plain.tif"), str(names["plain"]), **options)
        capsys.readouterr()
        module.segment(str(bundle), str(tmp_path / "p.svs"), str(names["pyramid"]), level=level, **options)
        size = f"{700 // step} x {900 // step} px"
        assert f"p.svs: series 0 (Baseline) of 2, level {level} of 2, {size}\n" in capsys.readouterr().out
        masks = [zarr.open_array(path / "0", mode="r")[:] for path in names.values()]
        np.testing.assert_array_equal(*masks)
        with open_large_image(names["pyramid"]) as mask:
            assert mask.pixel_size_um == pytest.approx((0.499 * step,) * 2)


def test_the_physical_size_and_place_of_an_ngff_image_survive(
    module: ModuleType, bundle: Path, slide: Path, tmp_path: Path
) -> None:
    steps = [{"type": "scale", "scale": [1, 0.5, 0.25]}, {"type": "translation", "translation": [0, 6, 8]}]
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "millimeter"} for n in "yx")]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    image["coordinateTransformations"] = [{"type": "scale", "scale": [1, 1e-3, 1e-3]}]
    group = zarr.create_group(tmp_path / "i.zarr", zarr_format=2, attributes={"multiscales": [image]})
    group.create_array("0", data=tifffile.imread(slide).transpose(2, 0, 1).copy(), chunks=(3, 128, 128))
    options: dict[str, Any] = {"window": 320, "overlap": 32, "device": "cpu"}
    module.segment(str(bundle), str(tmp_path / "i.zarr"), str(tmp_path / "m.zarr"), **options)
    with open_large_image(tmp_path / "m.zarr") as mask:
        assert (mask.pixel_size_um, mask.origin_um) == (pytest.approx((0.5, 0.25)), pytest.approx((6, 8)))
    module.segment(str(bundle), str(tmp_path / "i.zarr"), str(tmp_path / "m.tif"), format="tiff", **options)
    with open_large_image(tmp_path / "m.tif") as mask:
        assert mask.pixel_size_um == pytest.approx((0.5, 0.25))


def test_a_finished_result_stays_where_restart_is_false(bundle: Path, slide: Path, tmp_path: Path) -> None:
    words = ["segment-large", str(bundle), str(slide), str(tmp_path / "m.zarr"), "--window", "320", "--overlap", "32"]
    cli.main([*words, "--device", "cpu"])
    (tmp_path / "m.zarr" / "MARK").touch()
    cli.main([*words, "--device", "cpu", "--restart", "false"])
    assert (tmp_path / "m.zarr" / "MARK").exists()
    cli.main([*words, "--device", "cpu", "--restart"])
    assert not (tmp_path / "m.zarr" / "MARK").exists()


def test_a_preprocessing_that_needs_the_whole_image_is_refused(
    module: ModuleType, bundle: Path, slide: Path, tmp_path: Path
) -> None:
    for step, message in (
        ({"_target_": "ScaleIntensityd", "keys": "image"}, "preprocessing has ScaleIntensityd, which"),
        ({"_target_": "NormalizeIntensityd", "keys": "image"}, "has NormalizeIntensityd by the image's own mean"),
    ):
        config = CONFIG | {"preprocessing": {"_target_": "Compose", "transforms": [step]}}
        (bundle / "configs/inference.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=message):
            module.segment(str(bundle), str(slide), str(tmp_path / "m.zarr"), device="cpu")
    assert not (tmp_path / "m.zarr").exists()


def test_missing_files_and_wrong_formats_are_named(
    module: ModuleType, bundle: Path, slide: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="--format is png, expected ome-zarr or tiff"):
        module.segment(str(bundle), str(slide), str(tmp_path / "m.png"), format="png")
    with pytest.raises(FileNotFoundError, match="is no bundle and no folder with configs"):
        module.segment(str(tmp_path), str(slide), str(tmp_path / "m.zarr"))
    with pytest.raises(FileNotFoundError, match=r"absent.pt: no such file"):
        module.segment(str(bundle), str(slide), str(tmp_path / "m.zarr"), ckpt_path=str(tmp_path / "absent.pt"))


def test_a_plate_of_fundus_photographs_is_segmented_by_a_shipped_network(
    module: ModuleType, shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "chase_db1"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    files = sorted(folder.glob("*.jpg"))[:2]
    plate = np.concatenate([np.asarray(Image.open(path).convert("RGB"))[:600, :700] for path in files], axis=1)
    tifffile.imwrite(tmp_path / "p.tif", plate, tile=(256, 256), compression="jpeg", photometric="rgb")
    options: dict[str, Any] = {"window": 512, "overlap": 64, "device": "cpu"}
    module.segment("gaze_polyp_segmentation", str(tmp_path / "p.tif"), str(tmp_path / "m.zarr"), **options)
    mask = np.asarray(zarr.open_array(tmp_path / "m.zarr" / "0", mode="r")[:])
    assert mask.shape == (600, 1400)
    assert set(np.unique(mask)) <= {0, 1}


def test_a_bundle_that_numbers_instances_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    with pytest.raises(SystemExit, match="pace_cell_segmentation: its network numbers instances and marks no mask"):
        cli.main(["segment-large", "pace_cell_segmentation", str(tmp_path / "a.tif"), str(tmp_path / "b.zarr")])
    assert not (tmp_path / "b.zarr").exists()


def test_the_image_is_never_replaced_by_its_mask(tmp_path: Path) -> None:
    (tmp_path / "slide.tif").write_bytes(b"pixels")
    (tmp_path / "link.tif").symlink_to("slide.tif")
    for name in ("slide.tif", "link.tif"):
        with pytest.raises(ValueError, match=rf"{name} is the image itself"):
            segment("any", str(tmp_path / "slide.tif"), str(tmp_path / name), format="tiff", restart=True)
    assert (tmp_path / "slide.tif").read_bytes() == b"pixels"
