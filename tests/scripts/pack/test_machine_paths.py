from pathlib import Path

import pytest

from clinbundles.scripts.pack.machine_paths import as_text, check_machine_paths

ROOT = Path(__file__).parents[3]
FILES = [path for top in ("bundles", "transforms", "nets", "engines") for path in sorted((ROOT / top).rglob("*"))]
FILES = [path for path in FILES if path.is_file() and "__pycache__" not in path.parts]
TEXTS = [path for path in FILES if as_text(path.read_bytes()) is not None]


@pytest.mark.parametrize(
    "path",
    [
        "/home/jane/x", "/root/x", "/Users/jane", "/work/x", "/tmp/x", "/scratch/jane", "/data/jane", "/media/jane/usb",
        "/Volumes/Disk", "/usr/home/jane", "/var/folders/ab", "file:///home/jane", "host:/home/jane", "\\/home\\/jane",
        "C:\\Users\\jane", "C:\\\\Users\\\\jane", "d:/data/jane", "C:\\Documents and Settings\\jane",
    ],
)  # fmt: skip
@pytest.mark.parametrize("file", ["docs/t.csv", "docs/t.HTML", "docs/T.TXT", "configs/logging.conf", "docs/noending"])
def test_a_folder_of_a_machine_is_named_with_its_line_in_every_text(path: str, file: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        with pytest.raises(ValueError, match=r"line 2: names a folder of a machine \(.+…\)"):
            check_machine_paths(f"polyps/{file}", f'a,b\n1,"{path}",é\n'.encode(encoding))


@pytest.mark.parametrize(
    "text",
    [
        "https://github.com/home/x", "http://host.org/Users/x", "./work/x", "../data/x", "runs/tmp/x", "/data",
        "https://zenodo.org/data/x", "b:\\n", "and/or/home/x", "#!/usr/bin/env sh", "ratio 3:/4", "ftp://x.org/scratch/y",
    ],
)  # fmt: skip
def test_addresses_and_relative_paths_are_none(text: str) -> None:
    check_machine_paths("polyps/docs/x.txt", f" {text} ".encode())


@pytest.mark.parametrize("file", ["docs/README.md", "polyps_0123abcd/transforms/a.py"])
def test_a_page_and_code_may_give_data_as_an_example_and_no_home(file: str) -> None:
    for example in ("/data/frames", "C:\\stimuli\\frame.jpg"):
        check_machine_paths(f"polyps/{file}", f"--dataset_dir {example}".encode())
    for home in ("/home/jane/frames", "C:\\Users\\jane\\frames", "c:/users/jane"):
        with pytest.raises(ValueError, match=rf"{file}, line 1: names a folder of a machine"):
            check_machine_paths(f"polyps/{file}", f"--dataset_dir {home}".encode())


def test_what_is_no_text_is_passed_over() -> None:
    check_machine_paths("polyps/models/model.pt", b"\x80\x02 /home/jane/model.py")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_text_of_ours_names_one(path: Path) -> None:
    if path.name != "reproduce.json":
        check_machine_paths(path.name, path.read_bytes())


def test_there_are_texts() -> None:
    assert len(TEXTS) > 50
