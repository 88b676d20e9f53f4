"""A pure zip on studies whose images it can read in part, with real files."""

import csv
import gc
import shutil
from pathlib import Path

import numpy as np
import pytest
from imagecodecs import png_encode
from PIL import Image

from clinbundles.engines.outputs.per_image import NothingUsedError
from clinbundles.scripts.pack.run import pack
from clinbundles.scripts.predict.pure import run_each, sentence_about
from clinbundles.scripts.predict.run import predict

BUNDLE = Path(__file__).parents[3] / "bundles" / "gaze_polyp_segmentation"
# MONAI loads and saves TorchScript, which torch is about to leave, and its reader leaves a refused file open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning"),  # ITK, when imported
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two frames among what a pure zip cannot read, and one pixel, of which MONAI can write no mask."""
    folder = tmp_path / "in" / "study"
    folder.mkdir(parents=True)
    first, second = sorted((BUNDLE / "samples").rglob("*.jpg"))[:2]
    shutil.copy(first, folder / "a.jpg")
    shutil.copy(second, folder / "z.jpg")
    content = first.read_bytes()
    (folder / "torn.jpg").write_bytes(content[: len(content) // 2])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    deep = np.asarray(Image.open(first)).astype(np.uint16) * 257
    (folder / "deep.png").write_bytes(png_encode(deep))
    Image.fromarray(deep[..., 0]).save(folder / "grey.png")
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    return folder


def test_what_a_pure_zip_cannot_read_costs_the_other_images_nothing(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, bad = tmp_path / "out", ("deep", "empty", "grey", "one", "text", "torn")
    pack(BUNDLE.name, out=str(tmp_path / "zips"), profile="pure")
    (file,) = (tmp_path / "zips").glob("*.zip")
    for path in sorted(study.iterdir()):
        shutil.copy(path, study.parent)
    with pytest.raises(SystemExit, match="tries the failed ones again"):  # the one pixel
        predict(str(file), str(study.parent), str(out))
    phases = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("packed 1 of 1")]
    assert phases == [
        f"{BUNDLE.name}: exporting to TorchScript",
        f"unpacking {file.name}",
        "loading the network for the first study; once there are more, a bar or a line a minute",
    ]
    gc.collect()  # the files that MONAI left open
    rows = {row["study"]: row for row in csv.DictReader((out / "status.csv").read_text().splitlines())}
    assert {name: row["status"] for name, row in rows.items()} == {
        "study": "done",
        "a": "done",
        "z": "done",
        "one": "failed",
        **dict.fromkeys(("deep", "empty", "grey", "text", "torn"), "refused"),
    }
    assert (rows["study"]["images"], rows["study"]["left_out"]) == ("2", str(len(bad)))
    sentence = rows["study"]["sentence"]
    assert sentence.startswith(
        "6 images could not be used (deep.png, empty.png, grey.png, one.png, text.png, torn.jpg)."
    )
    assert sentence.endswith(" deep.png: RGB of 16 bits, 352 px: JPEG and PNG of 8 bits a channel alone are read.")
    assert rows["deep"]["sentence"].startswith("0 of 1 images could be read; of the first: deep.png: RGB of 16 ")
    assert rows["deep"]["left_out"] == "1"
    for name in bad:
        assert f"{name}." in rows[name]["sentence"]
        assert str(tmp_path) not in rows[name]["sentence"]
    masks = sorted(path.name for path in (out / "studies" / "study").iterdir())
    assert masks == ["a.png", "z.png"]
    for name in masks:
        alone = out / "studies" / Path(name).stem / name
        assert (out / "studies" / "study" / name).read_bytes() == alone.read_bytes()


def test_where_every_image_runs_alone_the_error_of_all_is_told() -> None:
    items = [{"image": "a.png"}, {"image": "b.png"}]
    error = RuntimeError("of all")
    with pytest.raises(RuntimeError, match="of all"):
        run_each(lambda _: None, items, error)
    with pytest.raises(NothingUsedError, match=r"0 of 1 images could be read; of the first: a\.png: "):
        run_each(lambda _: None, items[:1], RuntimeError("LoadImaged"))
    assert sentence_about("a.png", ValueError("/x/a.png: no.")) == "a.png: no."
