"""Tests of the writer of label maps: files, counts a class, and the numbers of patients."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Orientation
from PIL import Image

from clinbundles.engines.outputs.colors import CLASSES
from clinbundles.engines.outputs.label_maps import (
    LabelMapWriter,
    as_pictures,
    color_classes,
    with_square_pixels,
)
from clinbundles.transforms.readers.slices import PICTURE_AFFINE, SliceReader


def test_the_background_stays_grey_and_each_class_has_its_colour() -> None:
    image, classes = np.full((1, 3), 100, np.uint8), np.array([[0, 1, 2]])
    picture = color_classes(image, classes, opacity=1.0)
    assert picture[0].tolist() == [[100, 100, 100], list(CLASSES[0]), list(CLASSES[1])]
    half = color_classes(image, classes, opacity=0.5)
    assert half[0, 1].tolist() == [(100 + c) // 2 for c in CLASSES[0]]


def test_ten_classes_have_ten_colours_in_overlay_and_legend(tmp_path: Path) -> None:
    classes = np.arange(11)[None]
    picture = color_classes(np.full((1, 11), 100, np.uint8), classes, opacity=1.0)
    names = ["background", *(f"part {k}" for k in range(1, 11))]
    legend = LabelMapWriter(tmp_path, names, SliceReader()).legend
    assert [name for name, _ in legend] == names[1:]
    assert picture[0, 1:].tolist() == [list(color) for _, color in legend]
    assert len({color for _, color in legend}) == 10


def test_more_classes_than_a_label_map_holds_are_refused(tmp_path: Path) -> None:
    names = [str(number) for number in range(257)]
    assert len(LabelMapWriter(tmp_path, names[:256], SliceReader()).legend) == 255
    with pytest.raises(ValueError, match="class_names has 257, a label map holds 256 with the background"):
        LabelMapWriter(tmp_path, names, SliceReader())


def test_it_writes_maps_overlays_and_a_table_of_pixels_in_both_and_in_either(tmp_path: Path) -> None:
    truth = torch.tensor([[0, 1], [1, 2]]).view(1, 2, 2, 1)
    pred = torch.tensor([[0, 1], [2, 2]]).view(1, 2, 2, 1)
    data = []
    for name in ("a", "b"):
        image = MetaTensor(
            torch.zeros(1, 2, 2, 1), affine=PICTURE_AFFINE, meta={"filename_or_obj": str(tmp_path / f"{name}.png")}
        )
        data.append({"image": image, "label": truth if name == "a" else None, "group": "patient 7"})
    engine = Engine(lambda engine, batch: [{"pred": MetaTensor(pred, affine=PICTURE_AFFINE)}])
    writer = LabelMapWriter(tmp_path / "out", ["background", "body", "lung"], SliceReader())
    writer.attach(engine)
    engine.run(DataLoader(Dataset(data), batch_size=1, collate_fn=list))
    table = list(csv.DictReader((tmp_path / "out" / "per_image.csv").read_text().splitlines()))
    assert [row["image"] for row in table] == ["a.png", "b.png"]
    first, second = table
    assert [first[f"both_{k}"] for k in range(3)] == ["1", "1", "1"]
    assert [first[f"either_{k}"] for k in range(3)] == ["1", "2", "2"]
    assert [first[f"share_{name}"] for name in writer.class_names] == ["0.25", "0.25", "0.5"]
    assert second["both_1"] == ""
    assert first["patient"] == second["patient"] == "0"
    assert np.asarray(Image.open(tmp_path / "out/label_maps/a.png")).tolist() == [[0, 1], [2, 2]]
    assert np.asarray(Image.open(tmp_path / "out/overlays/a.png")).shape == (2, 4, 3)
    assert np.asarray(Image.open(tmp_path / "out/overlays/b.png")).shape == (2, 2, 3)


def test_label_maps_become_a_data_set_to_train_on_where_a_source_is_given(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text(json.dumps({"window_hu": [-1000, 600]}))
    path = tmp_path / "images" / "a.png"
    meta = {"filename_or_obj": str(path)}
    data = [{"image": MetaTensor(torch.zeros(1, 2, 2, 1), affine=PICTURE_AFFINE, meta=meta)}]
    engine = Engine(lambda engine, batch: [{"pred": MetaTensor(torch.ones(1, 2, 2, 1), affine=PICTURE_AFFINE)}])
    folder = tmp_path / "out"
    LabelMapWriter(folder, ["background", "body"], SliceReader(), tmp_path / "real.json").attach(engine)
    engine.run(DataLoader(Dataset(data), batch_size=1, collate_fn=list))
    content = json.loads((folder / "datalist.json").read_text())
    assert content["labels"] == {"0": "background", "1": "body"}
    assert (content["labeller"], content["window_hu"]) == ("network", [-1000, 600])
    (item,) = content["training"]
    assert (folder / item["image"]).resolve() == path.resolve()
    assert (folder / item["label"]).is_file()
    (folder / "datalist.json").write_text('{"name": "slices that people labelled"}')
    with pytest.raises(ValueError, match=r"datalist.json: is of another data set \(slices that people labelled\)"):
        engine.run(DataLoader(Dataset(data), batch_size=1, collate_fn=list))


def test_pictures_of_a_volume_of_any_axes_have_posterior_below_and_left_on_the_right() -> None:
    # Axes of the array: towards right, anterior and superior.
    values = np.zeros((4, 3, 2), np.uint8)
    values[0, 2, 1] = 7  # far left, in front, towards the head
    pictures = as_pictures(values, np.diag([2.0, 2.0, 5.0, 1.0]))
    assert pictures.shape == (2, 3, 4)
    assert pictures[1, 0, 3] == 7
    assert pictures.sum() == 7
    plain = np.arange(6).reshape(2, 3, 1)
    assert np.array_equal(as_pictures(plain, PICTURE_AFFINE.numpy())[0], plain[..., 0])


def test_a_picture_of_a_coronal_series_is_as_high_as_the_patient_is_deep(tmp_path: Path) -> None:
    # Axes of the array: towards left, inferior, and slices 8 mm apart towards posterior.
    affine = np.array([[-0.5, 0, 0, 0], [0, 0, -8.0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]])
    (picture, *_) = as_pictures(np.zeros((512, 90, 20), np.uint8), affine)
    assert picture.shape == (20, 512)
    assert with_square_pixels(np.stack([picture] * 3, axis=-1), affine).shape == (320, 512, 3)
    meta = {"filename_or_obj": str(tmp_path / "a.nii.gz")}
    data = [{"image": MetaTensor(torch.zeros(1, 40, 2, 2), affine=affine, meta=meta)}]
    engine = Engine(lambda engine, batch: [{"pred": MetaTensor(torch.ones(1, 40, 2, 2), affine=affine)}])
    LabelMapWriter(tmp_path / "out", ["background", "body"], SliceReader()).attach(engine)
    engine.run(DataLoader(Dataset(data), batch_size=1, collate_fn=list))
    assert np.asarray(Image.open(tmp_path / "out/overlays/a.png")).shape == (32, 80, 3)  # two slices of 20 x 16 mm
    plain = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(with_square_pixels(plain, np.diag([2.0, 2.0, 9.0, 1.0])), plain)


def test_the_overlay_of_a_volume_that_was_turned_for_the_network_lies_as_its_labels(tmp_path: Path) -> None:
    grey = np.zeros((6, 6, 1), dtype=np.uint8)  # x, y, z of a volume whose x runs left and y to posterior
    grey[4:, 1] = 200
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    meta = {"filename_or_obj": str(tmp_path / "a.nii.gz")}

    class Reader(SliceReader):
        def read(self, data: object, **_: object) -> np.ndarray:
            return grey

        def get_data(self, img: np.ndarray) -> tuple[np.ndarray, dict]:
            return img, {}

    turned = Orientation("PLS", labels=None)(MetaTensor(grey[None] / 127.5 - 1.0, affine=affine, meta=meta))
    assert turned.shape[1:] == grey.shape  # so that its shape does not give it away
    assert not np.allclose(turned.affine, affine)
    pred = MetaTensor((grey > 0)[None].astype(np.uint8), affine=affine)
    engine = Engine(lambda engine, batch: [{"pred": pred}])
    LabelMapWriter(tmp_path / "out", ["background", "body"], Reader()).attach(engine)
    engine.run(DataLoader(Dataset([{"image": turned}]), batch_size=1, collate_fn=list))
    overlay = np.asarray(Image.open(tmp_path / "out/overlays/a.png")).astype(int)
    assert sorted({tuple(pixel) for pixel in overlay.reshape(-1, 3)})[0] == (0, 0, 0)
    assert len({tuple(pixel) for pixel in overlay.reshape(-1, 3)}) == 2  # ground, and bright with the colour of body
    assert overlay.max() > 140


def test_the_sheet_of_a_volume_says_where_its_slices_lie_and_what_its_colours_mean(tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1.0, 5.0, 1.0])
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.full((100, 80, 2), -500, np.int16), affine), path)
    image = MetaTensor(torch.full((1, 100, 80, 2), -1.0), affine=affine, meta={"filename_or_obj": str(path)})
    engine = Engine(lambda engine, batch: [{"pred": MetaTensor(torch.ones(1, 100, 80, 2), affine=affine)}])
    LabelMapWriter(tmp_path / "out", ["background", "body", "lung"], SliceReader()).attach(engine)
    engine.run(DataLoader(Dataset([{"image": image}]), batch_size=1, collate_fn=list))
    sheet = np.asarray(Image.open(tmp_path / "out/overlays/a.png"))
    assert sheet.shape[1:] == (200, 3)
    colors = {tuple(pixel) for pixel in sheet[80:].reshape(-1, 3).tolist()}
    assert colors >= set(CLASSES[:2])
    for left in (0, 100):  # on both slices, over the even colour of a body without grey
        assert len({tuple(pixel) for pixel in sheet[:16, left : left + 60].reshape(-1, 3).tolist()}) > 2
