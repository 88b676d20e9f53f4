import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from clinbundles.scripts.large_image.store import PROGRESS, MaskStore, chunk_of, earlier_settings, windows_of

SETTINGS = {"window": 320, "overlap": 32, "threshold": 0.5, "keep_probability": True, "knobs": {"n_patches": 8}}
SHAPE = (600, 700)
WINDOWS = list(windows_of(SHAPE, window=320, overlap=32))


def fill(store: MaskStore, value: float = 0.5) -> None:
    for each in WINDOWS:
        if (each.row, each.column) not in store.done:
            store.write(
                np.full((each.kept_y[1] - each.kept_y[0], each.kept_x[1] - each.kept_x[0]), value, np.float32), each
            )


def attributes(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "zarr.json").read_text())["attributes"]


def test_only_a_finished_mask_is_an_ome_ngff_image(tmp_path: Path) -> None:
    store = MaskStore(tmp_path / "m.zarr", SHAPE, SETTINGS)
    fill(store)
    assert "ome" not in attributes(tmp_path / "m.zarr")
    assert attributes(tmp_path / "m.zarr")["clinbundles"]["complete"] is False
    store.finish(pixel_size_um=(0.5, 0.5))
    assert attributes(tmp_path / "m.zarr")["clinbundles"]["complete"] is True
    assert not (tmp_path / "m.zarr" / PROGRESS).exists()
    for folder, value in ((tmp_path / "m.zarr", 1), (tmp_path / "m.zarr/probability", 128)):
        paths = [d["path"] for d in attributes(folder)["ome"]["multiscales"][0]["datasets"]]
        assert paths == ["0", "1"]
        for path in paths:
            level = zarr.open_array(folder / path, mode="r")
            assert level.dtype == np.uint8
            assert (np.asarray(level[:]) == value).all(), "a probability at the threshold is foreground"


def test_a_mask_goes_on_where_it_was_and_a_torn_line_does_not_count(tmp_path: Path) -> None:
    store = MaskStore(tmp_path / "m.zarr", SHAPE, SETTINGS)
    for each in WINDOWS[:4]:
        store.write(None, each)
    with (tmp_path / "m.zarr" / PROGRESS).open("a") as stream:
        stream.write("1 ")
    again = MaskStore(tmp_path / "m.zarr", SHAPE, SETTINGS)
    assert again.done == {(0, 0), (0, 1), (0, 2), (1, 0)}
    fill(again)
    assert MaskStore(tmp_path / "m.zarr", SHAPE, SETTINGS).done == {(w.row, w.column) for w in WINDOWS}


def test_other_settings_are_refused_and_restart_begins_anew(tmp_path: Path) -> None:
    MaskStore(tmp_path / "m.zarr", SHAPE, SETTINGS).write(None, WINDOWS[0])
    other = SETTINGS | {"knobs": {"n_patches": 4}}
    with pytest.raises(ValueError, match=r"begun with other settings \(knobs \{'n_patches': 8\} then, .*--restart"):
        MaskStore(tmp_path / "m.zarr", SHAPE, other)
    assert MaskStore(tmp_path / "m.zarr", SHAPE, other, restart=True).done == set()


def test_what_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    assert earlier_settings(tmp_path / "new.zarr") is None
    zarr.create_array(tmp_path / "image.zarr", data=np.ones((3, 3)))
    for restart in (False, True):
        with pytest.raises(FileExistsError, match=r"image.zarr exists and is no result of this command"):
            MaskStore(tmp_path / "image.zarr", SHAPE, SETTINGS, restart=restart)
    assert np.asarray(zarr.open_array(tmp_path / "image.zarr")[:]).sum() == 9


def test_background_takes_no_room(tmp_path: Path) -> None:
    store = MaskStore(tmp_path / "m.zarr", SHAPE, SETTINGS)
    fill(store, value=0.0)
    assert not (tmp_path / "m.zarr" / "0" / "c").exists()


@pytest.mark.parametrize("shape", [(1000, 700), (384, 384), (100, 1000), (385, 257)])
def test_every_pixel_is_kept_once_and_no_window_leaves_the_image(shape: tuple[int, int]) -> None:
    kept = np.zeros(shape, int)
    for each in windows_of(shape, window=320, overlap=32):
        kept[slice(*each.kept_y), slice(*each.kept_x)] += 1
        for at, size in zip((each.y, each.x), shape, strict=True):
            assert 0 <= at <= max(size - 320, 0)
    assert (kept == 1).all()


def test_a_margin_lies_on_every_side_that_is_not_the_images_border() -> None:
    for each in windows_of((1000, 700), window=320, overlap=32):
        for at, kept, size in ((each.y, each.kept_y, 1000), (each.x, each.kept_x, 700)):
            assert kept[0] - at >= 32 or at == 0
            assert at + 320 - kept[1] >= 32 or at + 320 == size


def test_the_kept_part_is_a_whole_number_of_chunks() -> None:
    assert chunk_of(window=2048, overlap=128) == 256
    assert chunk_of(window=1024, overlap=0) == 512
    for window, overlap in ((256, 128), (300, 0), (256, -64)):
        with pytest.raises(ValueError, match=f"window is {window} and overlap {overlap}.*multiple of 64"):
            chunk_of(window=window, overlap=overlap)
