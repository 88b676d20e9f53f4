import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clinbundles.engines.weights_card import write_card
from clinbundles.scripts.audit.training_images import TrainingImages, count_seen, mark_seen, say_seen


def write_list(folder: Path, **splits: list[tuple[str, str]]) -> Path:
    """A datalist of files (name, content); a patient is the first letter of the content."""
    content: dict[str, Any] = {"name": folder.name}
    for split, files in splits.items():
        content[split] = [{"image": name, "label": 0, "group": text[0]} for name, text in files]
        for name, text in files:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (folder / "list.json").write_text(json.dumps(content))
    return folder / "list.json"


def write_model(folder: Path, datalist: Path | None = None, **options: Any) -> Path:
    model = folder / "model.pt"
    folder.mkdir(exist_ok=True)
    model.write_bytes(b"weights")
    if datalist is not None:
        digest = hashlib.sha256(datalist.read_bytes()).hexdigest()
        write_card(model, {"options": options, "datalist_sha256": digest})
    return model


def items_of(datalist: Path) -> dict[str, list[dict[str, Any]]]:
    """The split test, with whole paths."""
    items = json.loads(datalist.read_text())["test"]
    return {"test": [{**item, "image": str(datalist.parent / item["image"])} for item in items]}


def count(weights: Path, datalist: Path, **more: Any) -> dict[str, Any]:
    items = items_of(datalist)
    return count_seen(weights, items=items, datalist=datalist, root=datalist.parent, outside={}, **more)


TRAINED = [("train/a.png", "a1"), ("train/b.png", "b1")]


def test_a_training_image_is_found_by_its_bytes_under_another_name_and_not_by_its_name(tmp_path: Path) -> None:
    trained = write_list(tmp_path / "one", training=TRAINED, validation=[("v.png", "v1")])
    test = [("new/x.png", "a1"), ("v2.png", "v1"), ("c.png", "b2"), ("train/a.png", "z9")]
    other = write_list(tmp_path / "two", test=test)
    images = TrainingImages(trained, trained.parent)
    counts = images.count(items_of(other)["test"], other.parent)
    assert counts == {"images": 4, "trained_on": 1, "validated_on": 1, "same_patient": 1}


def test_images_that_are_not_at_hand_are_compared_by_name_and_that_is_said(tmp_path: Path) -> None:
    trained = write_list(tmp_path / "one", training=TRAINED)
    other = write_list(tmp_path / "two", test=[("train/a.png", "q1"), ("c.png", "c1")])
    weights = write_model(tmp_path / "model", trained)
    shutil.rmtree(tmp_path / "one" / "train")
    seen = count(weights, other, trained_on=trained, trained_on_dir=trained.parent)
    assert seen["audited"]["test"]["trained_on"] == 1
    assert "2 of its training images are not at hand and compared by their names alone" in " ".join(say_seen(seen))


def test_the_card_says_whether_the_datalist_is_that_of_the_training(tmp_path: Path) -> None:
    own = write_list(tmp_path / "one", training=TRAINED, test=[("x.png", "a1"), ("y.png", "y1")])
    weights = write_model(tmp_path / "model", own)
    seen = count(weights, own)
    assert seen["known"]
    assert mark_seen(seen, audited=True) == " (1 of 2 trained on)"
    assert mark_seen(seen, audited=False) == " (1 of 2 trained on)"
    assert "their values here are not those of new images" in say_seen(seen)[0]

    other = write_list(tmp_path / "two", training=[("t.png", "t1")], test=[("x.png", "a1"), ("y.png", "y1")])
    seen = count(weights, other)
    assert (seen["known"], seen["audited"]) == (False, None)
    assert "names a datalist of the sha256" in seen["basis"]
    assert mark_seen(seen, audited=True) == " (training images unknown)"
    assert mark_seen(seen, audited=False) == ""
    seen = count(weights, other, trained_on=own, trained_on_dir=own.parent)
    assert seen["audited"]["test"]["trained_on"] == 1
    with pytest.raises(ValueError, match=r"--trained_on .*two.list\.json: has the sha256 .* and the card of .* names"):
        count(weights, other, trained_on=other)


def test_without_a_card_only_a_named_datalist_says_it(tmp_path: Path) -> None:
    own = write_list(tmp_path / "one", training=TRAINED, test=[("x.png", "a1"), ("y.png", "y1")])
    weights = write_model(tmp_path / "model")
    seen = count(weights, own)
    assert seen["basis"] == "they have no card, and --trained_on is not given"
    assert "cannot be known" in say_seen(seen)[0]
    assert "The datalist has 1 of its 2 test images in training too" in say_seen(seen)[1]
    seen = count(weights, own, trained_on=own)
    assert seen["known"]
    assert seen["audited"]["test"]["trained_on"] == 1


@pytest.mark.parametrize(("stage", "trained_on"), [("transfer", 1), ("scratch", 0)])
def test_a_transferred_model_has_seen_the_images_of_its_start(tmp_path: Path, stage: str, trained_on: int) -> None:
    own = write_list(tmp_path, training=TRAINED, pretraining=[("p.png", "p1")], test=[("x.png", "p1"), ("y.png", "y1")])
    seen = count(write_model(tmp_path / "model", own, stage=stage), own)
    assert seen["audited"]["test"]["trained_on"] == trained_on


def test_weights_that_went_on_from_others_may_have_seen_more_and_that_is_said(tmp_path: Path) -> None:
    own = write_list(tmp_path, training=TRAINED, test=[("x.png", "p1"), ("y.png", "y1")])
    weights, digest = write_model(tmp_path / "model", own), hashlib.sha256(own.read_bytes()).hexdigest()
    assert "went on" not in " ".join(say_seen(count(weights, own)))
    start = {"name": "first.pt", "sha256": "ab" * 32}
    write_card(weights, {"datalist_sha256": digest, "initial_weights": [start]})
    assert (
        "They went on from first.pt (sha256 abababababab), which were trained on" in say_seen(count(weights, own))[-1]
    )
    write_card(weights, {"datalist_sha256": digest, "initial_weights": [start | {"datalist_sha256": digest}]})
    assert "went on" not in " ".join(say_seen(count(weights, own)))


def test_an_audit_of_training_images_alone_is_refused(tmp_path: Path) -> None:
    own = write_list(tmp_path, training=TRAINED, test=[("x.png", "a1"), ("y.png", "b1")])
    with pytest.raises(ValueError, match=r"list\.json: .*model\.pt was trained on all 2 test images"):
        count(write_model(tmp_path / "model", own), own)
