import json
import subprocess
import sys

import pytest
from PIL import Image

from clinbundles.scripts import cli
from clinbundles.scripts.prepare.command import find_data_sets, load, prepare


@pytest.fixture
def typed(tmp_path, capsys):
    """What clinbundles prepare says to words: the sentence that it ends with, or nothing; it writes list.json."""

    def say(data_set, root, *words):
        arguments = ["prepare", data_set, "--dataset_dir", str(root), "--output", str(tmp_path / "list.json"), *words]
        try:
            cli.main(arguments)
        except SystemExit as error:
            return str(error.code)
        return ""

    return say


def test_every_data_set_is_found_by_what_its_function_returns():
    paper = {"ph2", "retina", "chase_db1", "drive", "stare", "sartorius", "bowl2018", "kitti", "bdd100k", "livecell"}
    own = {"kvasir_seg", "polypgen", "folder", "covid_xray", "class_folder", "coco", "instance_maps"}
    functions = find_data_sets()
    slices = {"ct_nifti", "ct_dicom", "segthor", "iq_othnccd", "bowl2018_crops"}
    assert functions.keys() == own | paper | slices
    assert list(functions) == sorted(functions)
    for name, (module, outline) in functions.items():
        assert load(module, name).__doc__ == outline.__doc__ != None  # noqa: E711


@pytest.mark.parametrize("data_set", find_data_sets())
def test_a_missing_folder_is_named(tmp_path, data_set, run):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        run(tmp_path / "nowhere", data_set)
    (tmp_path / "empty").mkdir()
    with pytest.raises((FileNotFoundError, ValueError), match=r"empty.*: (no (such )?|expected a )folder"):
        run(tmp_path / "empty", data_set)


def test_an_output_in_a_missing_folder_is_refused_before_any_work(plain):
    for output in (plain, plain / "no" / "list.json"):
        with pytest.raises(ValueError, match=r"--output .*: expected a file in a folder that exists"):
            prepare("kvasir_seg", str(plain), str(output))


@pytest.mark.parametrize(
    ("data_set", "words", "message"),
    [
        ("kvasir", "", "there is no data set 'kvasir'; did you mean kvasir_seg?"),
        ("kvasir_seg", "--sede 3", "there is no option --sede; did you mean --seed?"),
        ("kvasir_seg", "--observer 2", "there is no option --observer."),
        ("kvasir_seg", "--root x", "there is no option --root"),
        ("kvasir_seg", "--seed 1.5", "--seed is '1.5', expected a whole number."),
        ("kvasir_seg", "--split best", "--split is 'best', expected random, official"),
        ("kvasir_seg", "--skip_bad yes", "--skip_bad is 'yes', expected true or false."),
        ("folder", "--label --modality x", "--label needs a value."),
        (
            "folder",
            "--label x --modality x --join_duplicates maybe",
            "--join_duplicates is 'maybe', expected true or false.",
        ),
        ("class_folder", "--force yes", "--force is 'yes', expected true or false."),
        ("chase_db1", "--observer 3", "--observer is 3: expected 1 or 2"),
        ("chase_db1", "--gaze gaze.csv", "there is no option --gaze"),
        ("bowl2018", "--targets boxes", "--targets is 'boxes', expected masks, instances"),
        ("livecell", "--clean_split maybe", "--clean_split is 'maybe', expected true or false."),
        ("coco", "--points few", "--points is 'few', expected a whole number."),
        ("coco", "--targets masks", "there is no option --targets"),
        ("covid_xray", "--sed 3", "there is no option --sed; did you mean --seed?"),
        ("covid_xray", "--ratios 6,2,2", "there is no option --ratios"),
        (
            "folder",
            "",
            "--label (what the masks mark, such as polyp) and --modality (how the images were taken, such as "
            "endoscopy) are missing.",
        ),
        ("folder", "--label polyp", "--modality (how the images were taken, such as endoscopy) is missing."),
    ],
)
def test_a_flag_that_cannot_be_is_refused_and_nothing_written(plain, tmp_path, typed, data_set, words, message):
    assert typed(data_set, plain, *words.split()).startswith(f"clinbundles prepare: {message}")
    assert not (tmp_path / "list.json").exists()


def test_the_command_line_takes_flags_and_puts_an_error_in_one_sentence(plain, tmp_path, typed):
    flags = ["--label", "polyp", "--modality", "endoscopy", "--ratios", "0.6,0.2,0.2"]
    Image.new("L", (41, 30)).save(plain / "masks" / "i3.png")
    assert typed("folder", plain, *flags, "--skip-bad") == ""
    assert len(json.loads((tmp_path / "list.json").read_text())["skipped"]) == 1
    sentence = typed("folder", plain, *flags)
    assert sentence.startswith("clinbundles prepare: ")
    assert sentence.endswith("i3.png: mask of 41x30 px, its image has 40x30. --skip_bad leaves such files out.")


def test_help_names_the_data_sets_and_the_flags_of_one():
    page = cli.help_of("prepare")
    assert all(name in page for name in find_data_sets())
    page = cli.help_of("prepare", ["stare"])
    assert "stare: STARE: stare-images/im0001.ppm.gz" in page
    assert "--observer (default 1)" in page
    assert "--ratios" in page
    assert "--gaze" not in page


def test_flags_are_checked_before_torch_is_imported(plain):
    code = (
        "import sys\nfrom clinbundles.scripts.prepare.command import prepare\n"
        f"try: prepare('kvasir_seg', {str(plain)!r}, {str(plain.parent / 'list.json')!r}, seed=-1)\n"
        "except ValueError as error: print(error, [n for n in ('torch', 'monai') if n in sys.modules])"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True).strip()
    assert said == "--seed is -1: expected a whole number from 0 to 2**32 - 1 []"
