import json
from pathlib import Path

import pytest

from clinbundles.transforms.readers.class_names import check_class_names

NAMES = ["normal", "bacterial", "covid19"]


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    """A list of the classes of NAMES, with a split for pretraining that has others."""
    content = {
        "labels": {str(k): name for k, name in enumerate(NAMES)},
        "pretraining_labels": {"0": "normal", "1": "bacterial", "2": "viral"},
    }
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    return tmp_path / "datalist.json"


def test_the_same_classes_in_another_order_are_refused_and_both_are_named(datalist: Path) -> None:
    check_class_names(datalist, NAMES, split="training")
    message = (
        r"datalist\.json: its classes are normal, bacterial, covid19, those of the network bacterial, normal, covid19: "
        r"give --class_names as the list has them, or prepare it by clinbundles prepare class_folder --class_names "
        r"""'\["bacterial", "normal", "covid19"\]'\.$"""
    )
    with pytest.raises(ValueError, match=message):
        check_class_names(datalist, ["bacterial", "normal", "covid19"], split="training")
    with pytest.raises(ValueError, match=r"network normal, bacterial: give --class_names as the list has them\.$"):
        check_class_names(datalist, NAMES[:2], split="test")


def test_a_split_with_classes_of_its_own_is_compared_with_these(datalist: Path) -> None:
    check_class_names(datalist, ["normal", "bacterial", "viral"], split="pretraining_validation")
    with pytest.raises(ValueError, match="its classes are normal, bacterial, viral, those of the network normal"):
        check_class_names(datalist, NAMES, split="pretraining")


def test_a_list_that_says_no_classes_or_is_not_there_is_left_to_its_reader(tmp_path: Path) -> None:
    check_class_names(tmp_path / "none.json", NAMES)
    (tmp_path / "plain.json").write_text('{"training": []}')
    check_class_names(tmp_path / "plain.json", NAMES)
    (tmp_path / "plain.json").write_text('{"training": [,]}')
    with pytest.raises(ValueError, match=r"plain\.json: is not JSON"):
        check_class_names(tmp_path / "plain.json", NAMES)
