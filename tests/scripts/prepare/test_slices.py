import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clinbundles.scripts.prepare.datalist import items_of
from clinbundles.scripts.prepare.series import Requirement, Series, Slice, SliceSet
from clinbundles.scripts.prepare.slices import reduce_grey, reduce_labels, sha256_of, write_slices


def half_dark(k: int, size: tuple[int, int] = (32, 32)) -> Slice:
    """A slice whose left half is dark and of class 0, and whose right half is of class 1, and brighter with ``k``."""
    labels = np.zeros(size, np.uint8)
    labels[:, size[1] // 2 :] = 1
    return Slice(labels * np.float32(100 + k + 0.4), labels, float(k))


def made(root: Path, slices: dict[str, list[Slice]], **changes: Any) -> SliceSet:
    """Make a set of series with these slices, one a name; the patient's name stands before the underscore."""
    series = []
    for name, members in slices.items():
        path = root / name
        path.write_text(name)

        def read(members: list[Slice] = members, path: Path = path) -> Iterator[Slice]:
            if not members:
                raise ValueError(f"{path}: broken.")
            yield from members

        series.append(Series(name, name.partition("_")[0], read, [path]))
    facts = {"name": "Made", "description": "slices", "licence": "CC0", "modality": "CT", "series": series}
    return SliceSet(**{**facts, "labels": ("background", "body"), "labeller": "people", **changes})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "datalist.json"


@pytest.fixture
def patients() -> dict[str, list[Slice]]:
    return {f"{name}_1": [half_dark(k), half_dark(k + 20)] for k, name in enumerate("dcba")}


def test_slices_are_written_reduced_and_found_from_the_datalist(
    tmp_path: Path, target: Path, patients: dict[str, list[Slice]], capsys: pytest.CaptureFixture
) -> None:
    write_slices(
        made(tmp_path, patients, window_hu=(-1000, 600)), root=tmp_path, target=target, image_size=16, test="d*"
    )
    content = json.loads(target.read_text())
    assert content["labels"] == {"0": "background", "1": "body"}
    assert (content["labeller"], content["window_hu"], content["licence"]) == ("people", [-1000, 600], "CC0")
    assert [len(content[split]) for split in ("training", "test")] == [6, 2]
    assert "validation" not in content
    # Patients go by numbers in the order of their names: d is the fourth.
    first, second = content["test"]
    assert first["image"] == "images/p04_s1_001.png"
    assert (first["group"], first["position"], second["position"]) == ("p04", 0.0, 20.0)
    image, labels = (np.asarray(Image.open(target.parent / second[key])) for key in ("image", "label"))
    assert image.dtype == labels.dtype == np.uint8
    assert image.shape == (16, 16)
    assert np.unique(image).tolist() == [0, 120]
    np.testing.assert_array_equal(labels, image > 0)
    assert sorted(path.name for path in target.parent.iterdir()) == ["datalist.json", "images", "labels"]
    assert "4 series with 8 slices came in, 4 with 8 are used" in capsys.readouterr().out


def test_a_random_split_keeps_patients_together_and_repeats(
    tmp_path: Path, target: Path, patients: dict[str, list[Slice]]
) -> None:
    write_slices(made(tmp_path, patients), root=tmp_path, target=target, image_size=16, ratios=[2, 1, 1], seed=3)
    content = json.loads(target.read_text())
    groups = {split: {item["group"] for item in content[split]} for split in ("training", "validation", "test")}
    assert sorted(len(members) for members in groups.values()) == [1, 1, 2]
    assert len(set.union(*groups.values())) == 4
    (tmp_path / "again").mkdir()
    other = tmp_path / "again" / "datalist.json"
    write_slices(made(tmp_path, patients), root=tmp_path, target=other, image_size=16, ratios=[2, 1, 1], seed=3)
    assert other.read_text() == target.read_text()


def test_slices_without_what_they_must_show_or_of_one_grey_value_are_left_out_and_counted(
    tmp_path: Path, target: Path, patients: dict[str, list[Slice]], capsys: pytest.CaptureFixture
) -> None:
    empty = Slice(np.arange(1024, dtype=np.float32).reshape(32, 32) / 8, np.zeros((32, 32), np.uint8), 7.0)
    flat = Slice(np.zeros((32, 32), np.uint8), np.ones((32, 32), np.uint8), 8.0)
    patients["a_1"] += [empty, flat]
    data = made(tmp_path, patients, requirement=Requirement(frozenset({1}), 0.01, "slices without body"))
    write_slices(data, root=tmp_path, target=target, image_size=16, ratios=[1, 0, 0])
    content = json.loads(target.read_text())
    assert content["left_out"] == {"slices without body": 1, "slices of one grey value": 1}
    assert len(items_of(content)) == len(list((target.parent / "images").iterdir())) == 8
    assert "1 slices without body, first p01_s1_003" in capsys.readouterr().out


def test_crops_do_not_overlap_and_keep_their_scale(tmp_path: Path, target: Path) -> None:
    pixels = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50).astype(np.float32) % 251
    data = made(tmp_path, {"a_1": [Slice(pixels, (pixels > 9).astype(np.uint8))]}, crops=True)
    write_slices(data, root=tmp_path, target=target, image_size=16, ratios=[1, 0, 0])
    items = json.loads(target.read_text())["training"]
    assert [item["image"] for item in items][-1] == "images/p01_s1_r01c02.png"
    assert [item["position"] for item in items] == [[r, c] for r in (0, 16) for c in (0, 16, 32)]
    for item in items:
        row, column = item["position"]
        crop = np.asarray(Image.open(target.parent / item["image"]))
        np.testing.assert_array_equal(crop, pixels[row : row + 16, column : column + 16])


def test_a_bad_series_stops_all_and_leaves_nothing_or_is_listed_without_its_name(
    tmp_path: Path, target: Path, patients: dict[str, list[Slice]]
) -> None:
    data = made(tmp_path, {**patients, "jane_1": []})
    with pytest.raises(ValueError, match=r"jane_1: broken\. --skip_bad leaves such series out"):
        write_slices(data, root=tmp_path, target=target, image_size=16)
    assert not list(target.parent.iterdir())
    write_slices(data, root=tmp_path, target=target, image_size=16, skip_bad=True)
    content = json.loads(target.read_text())
    assert content["skipped"] == [{"series": "p05_s1", "reason": "p05_s1: broken."}]
    assert "jane" not in target.read_text()


@pytest.mark.parametrize(
    ("size", "image_size", "message"),
    [
        ((32, 24), 16, r"a_1: slices of 24x32 px are not square: crop or pad them first"),
        ((32, 32), 64, r"a_1: slices of 32x32 px are smaller than --image_size 64"),
        ((32, 32), 8, r"--image_size is 8: expected a whole number of px from 16 to 1024"),
    ],
)
def test_nothing_is_stretched_or_enlarged(
    tmp_path: Path, target: Path, size: tuple[int, int], image_size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_slices(made(tmp_path, {"a_1": [half_dark(0, size)]}), root=tmp_path, target=target, image_size=image_size)


def test_what_is_there_is_not_mixed_with_what_is_new(
    tmp_path: Path, target: Path, patients: dict[str, list[Slice]]
) -> None:
    (target.parent / "labels").mkdir()
    with pytest.raises(ValueError, match=r"out/labels is there already: remove it, or write to another folder"):
        write_slices(made(tmp_path, patients), root=tmp_path, target=target, image_size=16)


def test_flags_that_contradict_each_other_and_sets_without_use_are_refused(
    tmp_path: Path, target: Path, patients: dict[str, list[Slice]]
) -> None:
    for data, flags, message in (
        (made(tmp_path, patients), {"test": "a*", "ratios": [6, 2, 2]}, r"--ratios are of a random split"),
        (made(tmp_path, patients, only_split="test"), {"test": "a*"}, r"choose patients, which Made does not tell"),
        (made(tmp_path, {}), {}, r"no series here\."),
        (made(tmp_path, {"a_1": [Slice(np.zeros((16, 16)))]}), {}, r"no slice of 1 is of use: 1 slices of one grey"),
        (made(tmp_path, dict(list(patients.items())[:2])), {}, r"2 groups are too few to split"),
    ):
        with pytest.raises(ValueError, match=message):
            write_slices(data, root=tmp_path, target=target, image_size=16, **flags)
        assert not list(target.parent.iterdir())


def test_the_hash_of_the_data_is_the_same_under_other_names_of_patients_and_files(
    tmp_path: Path, target: Path, patients: dict[str, list[Slice]]
) -> None:
    def sha256(names: list[str], folder: str) -> str:
        data = made(tmp_path, dict(zip(names, patients.values(), strict=True)))
        for name, text in zip(names, "dcba", strict=True):
            (tmp_path / name).write_text(text)
        (tmp_path / folder).mkdir()
        write_slices(data, root=tmp_path, target=tmp_path / folder / "list.json", image_size=16, test=names[0])
        return json.loads((tmp_path / folder / "list.json").read_text())["data_sha256"]

    assert sha256(["d_1", "c_1", "b_1", "a_1"], "before") == sha256(["a_1", "y_1", "b_1", "z_1"], "after")
    files = [tmp_path / name for name in ("a_1", "b_1")]
    assert sha256_of(files) == sha256_of(files[::-1]) != sha256_of(files[:1])


def test_one_file_of_two_patients_is_refused(tmp_path: Path, target: Path, patients: dict[str, list[Slice]]) -> None:
    data = made(tmp_path, patients)
    (tmp_path / "b_1").write_text("a_1")
    with pytest.raises(ValueError, match=r"b_1: the same as a_1, but of another patient; --patients says who is one"):
        write_slices(data, root=tmp_path, target=target, image_size=16)


def test_grey_is_the_mean_of_an_area_and_labels_are_its_majority() -> None:
    grey = np.arange(64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_allclose(reduce_grey(grey, 4), grey.reshape(4, 2, 4, 2).mean(axis=(1, 3)), rtol=1e-6)
    # A thirds of a pixel belong to two areas: the mean of all stays.
    assert reduce_grey(grey, 3).mean() == pytest.approx(grey.mean(), rel=1e-5)
    labels = np.array([[1, 1, 2, 0], [2, 1, 2, 0], [0, 3, 3, 3], [0, 3, 3, 1]], np.uint8)
    np.testing.assert_array_equal(reduce_labels(labels, 2, classes=4), [[1, 0], [0, 3]])
