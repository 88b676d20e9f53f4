import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    Resized,
    ScaleIntensityRanged,
    TorchVisiond,
)
from PIL import Image

from clinbundles.transforms.readers.chest_xray import ChestXRayReader
from clinbundles.transforms.readers.images import RGBImageReader
from clinbundles.transforms.readers.loading import (
    StrictLoadImaged,
    TolerantDataset,
    TolerantInvertd,
    reading_error,
)

SHAPE = (3, 16, 16)


def test_a_file_that_the_reader_refuses_is_not_read_by_another_one(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    item = {"image": str(tmp_path / "deep.png")}
    assert LoadImaged("image", reader=RGBImageReader())(item)["image"].max() > 255, "MONAI no longer falls back"
    with pytest.raises(ValueError, match=r"deep\.png: pixel mode .* is deeper than 8 bits"):
        StrictLoadImaged("image", RGBImageReader())(item)


def test_what_the_reader_takes_is_loaded_as_monai_would(tmp_path: Path) -> None:
    Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)).save(tmp_path / "a.png")
    item = {"image": str(tmp_path / "a.png"), "other": 1}
    strict = StrictLoadImaged("image", RGBImageReader())(item)
    usual = LoadImaged("image", reader=RGBImageReader())(item)
    assert (strict["image"] == usual["image"]).all()
    assert strict["image"].meta["filename_or_obj"] == usual["image"].meta["filename_or_obj"]
    assert strict["other"] == 1


def preprocessing() -> Compose:
    steps = [
        StrictLoadImaged("image", RGBImageReader()),
        EnsureChannelFirstd("image"),
        TorchVisiond("image", name="Resize", size=SHAPE[1:], antialias=True),
        ScaleIntensityRanged("image", a_min=0, a_max=255, b_min=0, b_max=1),
    ]
    return Compose([Compose(steps)])  # MONAI wraps an error once for each of the two


@pytest.fixture
def items(tmp_path: Path) -> list[dict]:
    """Good, corrupt, missing, good."""
    for name in ("first", "last"):
        grey = np.full((20, 30), 200, dtype=np.uint8)
        grey[0, 0] = 199
        Image.fromarray(grey).save(tmp_path / f"{name}.png")
    (tmp_path / "corrupt.png").write_bytes(b"no picture at all")
    names = ("first", "corrupt", "missing", "last")
    return [
        {"image": str(tmp_path / f"{name}.png"), "label": i, "group": f"p{i}", "source": "s"}
        for i, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("pixels", "color"),
    [
        (np.zeros((20, 30)), "0"),
        (np.full((20, 30, 3), 255), "255"),
        (np.full((20, 30, 3), (10, 20, 30)), r"\(10, 20, 30\)"),
    ],
)
def test_an_image_of_one_color_is_no_image_to_apply_a_network_to(
    tmp_path: Path, pixels: np.ndarray, color: str
) -> None:
    file = tmp_path / "cap.png"
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    items = [{"image": str(file)}]
    failed = TolerantDataset(items, preprocessing(), placeholder=SHAPE)[0]
    assert re.fullmatch(
        rf".*cap\.png: every pixel is {color}, so that there is nothing to see in it\.", failed["failure"]
    )
    assert not failed["image"].any()
    assert Dataset(items, preprocessing())[0]["image"].shape == SHAPE, "a training may take it"
    pixels[7, 5] += 1 if pixels.max() < 255 else -1
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    assert TolerantDataset(items, preprocessing(), placeholder=SHAPE)[0]["failure"] == ""


def sentence_of(path: str) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        RGBImageReader().read(path)
    return str(caught.value)


def test_a_file_that_cannot_be_read_is_an_empty_image_with_the_readers_sentence(items: list[dict]) -> None:
    dataset = TolerantDataset(items, preprocessing(), placeholder=SHAPE)
    for i in (1, 2):
        failed = dataset[i]
        assert failed["failure"] == sentence_of(items[i]["image"])
        assert items[i]["image"] in failed["failure"]
        assert isinstance(failed["image"], MetaTensor)
        assert (failed["image"].shape, failed["image"].dtype) == (SHAPE, torch.float32)
        assert failed["image"].abs().sum() == 0
        assert failed["image"].meta["filename_or_obj"] == items[i]["image"]
        assert {key: failed[key] for key in ("label", "group", "source")} == {
            key: items[i][key] for key in ("label", "group", "source")
        }
    assert "failure" not in items[1]
    assert isinstance(items[1]["image"], str)


def test_a_good_file_comes_out_as_from_a_plain_dataset(items: list[dict]) -> None:
    good, plain = TolerantDataset(items, preprocessing(), placeholder=SHAPE)[0], Dataset(items, preprocessing())[0]
    assert (good.pop("failure"), good.pop("warning")) == ("", "")
    assert torch.equal(good.pop("image").as_tensor(), plain.pop("image").as_tensor())
    assert good == plain


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 0, 1), (1, 2)])
def test_good_and_failed_items_make_one_batch_and_come_apart_again(
    items: list[dict], order: tuple[int, ...], num_workers: int
) -> None:
    dataset = TolerantDataset([items[i] for i in order], preprocessing(), placeholder=SHAPE)
    (batch,) = DataLoader(dataset, batch_size=4, num_workers=num_workers)
    assert batch["image"].shape == (len(order), *SHAPE)
    for i, item in zip(order, decollate_batch(batch), strict=True):
        assert item["image"].meta["filename_or_obj"] == items[i]["image"]
        assert (item["label"], item["group"]) == (i, f"p{i}")
        assert bool(item["failure"]) == (i in (1, 2))
        assert float(item["image"].mean()) == pytest.approx(0 if i in (1, 2) else 200 / 255, abs=1e-4)


def test_a_failure_is_one_line_of_the_log_and_nothing_is_printed(
    items: list[dict], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    dataset = TolerantDataset(items, preprocessing(), placeholder=SHAPE)
    caplog.set_level(logging.INFO)
    caplog.clear()
    for i in range(len(items)):
        dataset[i]
    assert caplog.messages == [sentence_of(items[i]["image"]) for i in (1, 2)]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert capsys.readouterr() == ("", "")


def test_a_sentence_of_several_lines_becomes_one(tmp_path: Path) -> None:
    def fail(path: str) -> None:
        raise ValueError("first\nsecond")

    dataset = TolerantDataset([{"image": "a.png"}], Lambdad("image", fail), placeholder=SHAPE)
    assert dataset[0]["failure"] == "first second"


def test_an_error_that_is_no_fault_of_the_file_is_not_swallowed(items: list[dict]) -> None:
    def fail(image: object) -> None:
        raise KeyError("programming")

    dataset = TolerantDataset(items, Lambdad("image", fail), placeholder=SHAPE)
    with pytest.raises(RuntimeError) as caught:
        dataset[0]
    assert isinstance(caught.value.__cause__, KeyError)

    raised = RuntimeError("CUDA error")
    raised.__cause__ = ValueError("something else")
    assert reading_error(raised) is None


def test_an_image_unlike_the_placeholder_is_named_before_a_batch_breaks(items: list[dict]) -> None:
    with pytest.raises(ValueError, match=r"first\.png: image of shape \(3, 16, 16\).*placeholder is \(1, 16, 16\)"):
        TolerantDataset(items, preprocessing(), placeholder=(1, 16, 16))[0]
    for placeholder in ((), (3, 0, 4), (3, 2.5, 2)):
        with pytest.raises(ValueError, match="placeholder is"):
            TolerantDataset(items, preprocessing(), placeholder=placeholder)


def test_the_run_goes_on_when_every_file_fails(items: list[dict]) -> None:
    dataset = TolerantDataset(items[1:3], preprocessing(), placeholder=SHAPE)
    assert all(item["failure"] for item in dataset)


def test_images_of_any_size_go_one_by_one_where_that_is_asked_for(tmp_path: Path) -> None:
    for name, size in (("a.png", (9, 7)), ("b.png", (5, 6))):
        Image.linear_gradient("L").resize(size).convert("RGB").save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no image")
    items = [{"image": str(tmp_path / name)} for name in ("a.png", "b.png", "c.png")]
    transform = Compose([StrictLoadImaged("image", RGBImageReader()), EnsureChannelFirstd("image")])
    dataset = TolerantDataset(items, transform, placeholder=(3, 4, 4), any_size=True)
    assert [tuple(item["image"].shape) for item in dataset] == [(3, 7, 9), (3, 6, 5), (3, 4, 4)]
    assert [bool(item["failure"]) for item in dataset] == [False, False, True]


def test_what_a_reader_says_of_an_image_that_it_read_is_its_warning(
    items: list[dict], caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(np.tile(np.arange(40, dtype=np.uint8) % 3 * 9, (40, 1))).save(items[0]["image"])
    steps = Compose([StrictLoadImaged("image", ChestXRayReader()), EnsureChannelFirstd("image")])
    dataset = TolerantDataset(items[:2], steps, placeholder=(1, 40, 40))
    assert dataset[0]["warning"] == "It has 3 grey values, expected 16 or more."
    assert dataset[0]["failure"] == dataset[1]["warning"] == ""
    assert f"{items[0]['image']}: It has 3 grey values, expected 16 or more." in caplog.messages


def test_a_result_is_inverted_but_for_that_of_a_placeholder(items: list[dict]) -> None:
    steps = Compose(
        [StrictLoadImaged("image", RGBImageReader()), EnsureChannelFirstd("image"), Resized("image", SHAPE[1:])]
    )
    dataset = TolerantDataset(items[:2], steps, placeholder=SHAPE, removed=["group"])
    invert = TolerantInvertd("pred", transform=steps, orig_keys="image")
    good, failed = (invert({**item, "pred": MetaTensor(torch.ones(1, 16, 16))}) for item in dataset)
    assert good["pred"].shape == (1, 20, 30)
    assert failed["pred"].shape == (1, 16, 16)
    assert "group" not in failed
    host = {key: value for key, value in dataset[0].items() if key != "failure"}
    assert invert({**host, "pred": MetaTensor(torch.ones(1, 16, 16))})["pred"].shape == (1, 20, 30)
