"""Files with flipped bytes, cut off, or with the head of another kind: each is read as before, or refused by name."""

import gzip
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import save

ROOT = Path(__file__).parents[2]
SAMPLES = {bundle.name: bundle / "samples" for bundle in ROOT.glob("bundles/*")}
N_EACH, MOST_BYTES, MOST_SECONDS = 3, 2**31, 10.0


def real(pattern: str) -> bytes:
    """The bytes of a shipped sample."""
    return next(iter(sorted(ROOT.glob(f"bundles/*/samples/**/{pattern}")))).read_bytes()


def photograph(**how: Any) -> bytes:
    with Image.open(io.BytesIO(real("*.jpg"))) as image:
        return encoded(image.convert("RGB").resize((60, 50)), **how)


def encoded(image: Image.Image, **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **how)
    return stream.getvalue()


def mask() -> bytes:
    values = np.zeros((50, 60), np.uint8)
    values[10:30, 20:40] = 255
    return encoded(Image.fromarray(values), format="PNG")


def deep(format: str) -> bytes:
    values = np.random.default_rng(0).integers(0, 4096, (50, 60), np.uint16)
    if format == "PNG":
        return imagecodecs.png_encode(values)
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, compression="zlib")
    return stream.getvalue()


def volume() -> bytes:
    image = nibabel.load(next(SAMPLES["ct_datasetgan"].rglob("chest.nii.gz")))
    return nibabel.Nifti1Image(np.asanyarray(image.dataobj)[::2, ::2], image.affine @ np.diag([2, 2, 1, 1])).to_bytes()


def slide() -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    tifffile.imwrite(stream, pixels, tile=(64, 64), photometric="rgb", compression="zlib", resolution=(1e4, 1e4))
    return stream.getvalue()


def gaze() -> bytes:
    lines = [f"frame_{number // 4}.jpg,0.{number + 10},0.4,{100 + number},530,622" for number in range(20)]
    head = "IMAGE,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,IMAGE_HEIGHT,IMAGE_WIDTH"
    return "\n".join([head, *lines, ""]).encode()


def table() -> bytes:
    return b"image,patient,dice,failure\n" + b"".join(b"a%d.png,p%d,0.5,\n" % (n, n // 2) for n in range(20))


def weights(format: str) -> bytes:
    tensors = {f"layer_{number}.weight": torch.arange(24.0).reshape(4, 6) for number in range(3)}
    if format == "safetensors":
        return save(tensors)
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def packed() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("configs/inference.json", "LICENSE", "models/model.json"):
            archive.writestr(f"bundle/{name}", (SAMPLES["ct_datasetgan"].parent / name).read_bytes())
    return stream.getvalue()


# By the name of a file: how it is read, and what it holds.
FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "colour.png": ("photograph", lambda: photograph(format="PNG")),
    "colour.jpg": ("photograph", lambda: photograph(format="JPEG")),
    "progressive.jpg": ("photograph", lambda: photograph(format="JPEG", progressive=True)),
    "plain.tif": ("photograph", lambda: photograph(format="TIFF")),
    "lzw.tif": ("photograph", lambda: photograph(format="TIFF", compression="tiff_lzw")),
    "colour.bmp": ("photograph", lambda: photograph(format="BMP")),
    "colour.webp": ("photograph", lambda: photograph(format="WEBP")),
    "colour.jp2": ("photograph", lambda: photograph(format="JPEG2000")),
    "colour.png.gz": ("photograph", lambda: gzip.compress(photograph(format="PNG"), mtime=0)),
    "deep.png": ("deep picture", lambda: deep("PNG")),
    "deep.tif": ("deep picture", lambda: deep("TIFF")),
    "mask.png": ("mask", mask),
    "label_map.png": ("label map", lambda: real("labels/generated_00.png")),
    "chest.jpeg": ("x-ray", lambda: real("IM-0283-0001.jpeg")),
    "chest.dcm": ("x-ray", lambda: real("IM-normal.dcm")),
    "chest.nii": ("CT", volume),
    "chest.nii.gz": ("slice", lambda: gzip.compress(volume(), mtime=0)),
    "slide.tif": ("large image", slide),
    "gaze.csv": ("gaze", gaze),
    "per_image.csv": ("table", table),
    "datalist.json": ("datalist", lambda: (SAMPLES["ct_datasetgan"] / "datalist.json").read_bytes()),
    "frames.json": ("datalist with gaze", lambda: (SAMPLES["gaze_polyp_segmentation"] / "datalist.json").read_bytes()),
    "any.json": ("any datalist", lambda: (SAMPLES["two_stage_segmentation"] / "datalist.json").read_bytes()),
    "instances.json": ("COCO list", lambda: (SAMPLES["pace_cell_segmentation"] / "instances.json").read_bytes()),
    "model.pt": ("weights", lambda: weights("torch")),
    "model.safetensors": ("weights", lambda: weights("safetensors")),
    "card.json": ("card", lambda: (SAMPLES["ct_datasetgan"].parent / "models" / "model.json").read_bytes()),
    "bundle.zip": ("zip", packed),
}
# Where a changed byte is another text or number, and no checksum can tell.
TEXTS = (".csv", ".json")
# The quickest of the kind, for every run of the tests.
QUICK = ("colour.png", "per_image.csv")


def flip(raw: bytes, count: int, below: int, random_numbers: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(count):
        changed[random_numbers.randrange(min(below, len(raw)))] ^= 1 << random_numbers.randrange(8)
    return bytes(changed)


def mutants(raw: bytes, other: bytes, random_numbers: random.Random) -> Iterator[bytes]:
    """Wrong files of a right one."""
    for _ in range(N_EACH):
        for count, below in ((1, len(raw)), (1, 64), (4, 400), (64, len(raw))):
            yield flip(raw, count, below, random_numbers)
        yield raw[: random_numbers.randrange(len(raw))]
        start = random_numbers.randrange(len(raw))
        yield raw[:start] + bytes(min(200, len(raw) - start)) + raw[start + 200 :]
        yield raw[:start] + random_numbers.randbytes(200) + raw[start:]
    yield b""
    yield other[:64] + raw[64:]
    yield raw + raw
    yield raw[: len(raw) // 2] + other[len(other) // 2 :]
    yield random_numbers.randbytes(1000)


def fault_of(ending: Any, name: str, expected: Any) -> str:
    """What is wrong with how a file was taken; "" for nothing."""
    if ending.code != 0:
        return f"ended with {ending.code}{' (too long)' if ending.stopped else ''}: {ending.said[-300:]}"
    if ending.peak_bytes > MOST_BYTES:
        return f"took {ending.peak_bytes / 1e9:.1f} GB"
    answer = ending.answer
    if "shape" in answer:
        same = answer["shape"] == expected or name.endswith(TEXTS)
        return "" if same else f"read with the shape {answer['shape']}, not {expected}"
    sentence = answer["sentence"]
    if answer["memory"] or sentence is None:
        return f"no sentence: {answer['error'][:300]}"
    return "" if Path(name).stem in sentence and len(sentence) < 600 else f"does not name the file: {sentence[:300]}"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else (pytest.mark.attack,)) for n in FILES], ids=list(FILES)
)
def test_a_damaged_file_is_read_as_before_or_refused_in_a_sentence_with_its_name(
    name: str, copies: Any, tmp_path: Path
) -> None:
    kind, make = FILES[name]
    raw = make()
    path = tmp_path / name
    if name == "card.json":
        shutil.copy(ROOT / "bundles" / "ct_datasetgan" / "models" / "model.pt", path.with_suffix(".pt"))
    path.write_bytes(raw)
    limits: dict[str, Any] = {"cwd": tmp_path, "seconds": MOST_SECONDS, "more_bytes": MOST_BYTES}
    whole = copies.call("readings:read", kind, str(path), **limits)
    assert whole.code == 0, whole.said
    assert "shape" in whole.answer, whole.answer

    other = photograph(format="PNG") if not name.endswith(".png") else photograph(format="JPEG")
    faults, n_read = [], 0
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for number, mutant in enumerate(mutants(raw, other, random.Random(name))):
        path.write_bytes(mutant)
        ending = copies.call("readings:read", kind, str(path), **limits)
        n_read += ending.code == 0 and "shape" in ending.answer
        if fault := fault_of(ending, name, whole.answer["shape"]):
            shutil.copy(path, wrong / f"{number}_{name}")
            faults.append(f"{number}: {fault}")
    assert not faults, "\n".join([*faults, str(wrong)])
    assert n_read < number, "nothing was refused"


def test_a_damaged_checkpoint_is_kept_and_refused_or_made_again(copies: Any, tmp_path: Path) -> None:
    command = ["run", "ct_datasetgan", "train", "--channels", "[4,4,8,8,8,4]", "--batch_size", "4", "--max_epochs", "2"]
    command += ["--cache_rate", "0", "--seed", "1", "--resume", "true", "--ckpt_dir", "here"]
    assert copies.command([*command[:-6], "--resume", "false", "--ckpt_dir", "here"], tmp_path).code == 0
    path = tmp_path / "here" / "resume.ckpt"
    raw, random_numbers = path.read_bytes(), random.Random(0)
    path.write_bytes(flip(raw, 64, 400, random_numbers))
    before = path.read_bytes()
    ending = copies.command(command, tmp_path)
    assert (ending.code, ending.stopped) == (1, False), ending.said
    assert ending.said.splitlines()[-1].startswith("clinbundles run: here/resume.ckpt: "), ending.said
    assert path.read_bytes() == before
    for mutant in (raw[: len(raw) // 2], b"", json.dumps({"epoch": 1}).encode()):
        path.write_bytes(mutant)
        ending = copies.command(command, tmp_path)
        assert (ending.code, ending.stopped) == (0, False), ending.said
        assert "here/resume.ckpt: is torn" in ending.said
        assert path.with_name("resume.ckpt.torn").read_bytes() == mutant
        assert "epoch 2 of 2" in ending.said
