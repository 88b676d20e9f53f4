"""Apply a bundle, or a packed zip of one, to thousands of studies: a killed run is started again, and nothing is lost.

    clinbundles predict dist/gaze_polyp_segmentation_v0.1.0.zip /data/studies /data/out
    clinbundles predict two_stage_segmentation list.txt /data/out --shards 8 --cluster slurm

``studies/NAME/`` has what the bundle's inference writes for a study, and appears at once, when all of it is there;
``status/NAME.json`` says what became of it, and ``status.csv`` lists them all, of whichever inputs: a folder of inputs
may grow, and a study keeps the name that it got first. A study that is done or cannot be read is not tried again; one
that failed is, and one whose outputs are no more there. Several processes may work on one folder: each study is locked
meanwhile. An answer stands only for the bytes, the bundle, the config and the options that it was made of: see
settings.json, and of a study that is others since the status changed.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clinbundles.engines.folder_lock import lock_folder, unlock_folder
from clinbundles.engines.outputs.files import remove_partials, replacing
from clinbundles.engines.outputs.per_image import NothingUsedError
from clinbundles.engines.sentences import innermost, sentence_of
from clinbundles.scripts.bars import say, watch
from clinbundles.scripts.bundle import check_options, find_bundle, run_configs
from clinbundles.scripts.doctor.torchscript import refuse_programs
from clinbundles.scripts.flags import refuse_code
from clinbundles.scripts.pack.archive import unzip
from clinbundles.scripts.pack.pure import is_pure
from clinbundles.transforms.readers.folder import files_below, is_image

from .counts import count_images, left_below
from .hashes import hash_file, hash_files, source_of
from .inputs import check_apart, find_paths
from .names import name_studies
from .pure import DATA, Item, items_of, run_each
from .settings import check_made, check_settings, check_status, claim, settings_of
from .studies import (
    CHANGED,
    DONE,
    FAILED,
    REFUSED,
    Stamp,
    Status,
    Study,
    as_folder,
    compare_source,
    read_status,
    read_statuses,
    sizes_of,
    stamps,
    write_status,
    write_table,
)
from .unchanged import check_weights, check_zip
from .watching import watched

LOADING = "loading the network for the first study; once there are more, a bar or a line a minute"
LEFT_OUT = "Left out, for "  # so begins what a pure zip says of files that it does not read


def predict(
    bundle: str,
    inputs: str,
    output: str,
    *,
    config: str = "inference",
    retry_refused: bool = False,
    shards: int = 1,
    cluster: str | None = None,
    allow_expressions: bool = False,
    **options: Any,
) -> None:
    """Apply a bundle to each study of a folder or a list; started again, it goes on with those that are left.

    Any top-level value of the config is an option: --ckpt_path FILE applies weights of your own, such as
    runs/BUNDLE/train/model.pt; type the options that they were trained with, too, such as --image_size 96: they are not
    taken from the card of the weights, and one that differs from it is refused. A zip that ``clinbundles pack BUNDLE
    --ckpt_path FILE`` has made of them needs neither.

    Args:
        bundle: name of a bundle, in ./bundles or in the checkout of this project, a folder, or a zip of clinbundles
            pack.
        inputs: folders whose files and folders are a study each, images, and .txt or .csv lists of paths, comma
            separated; a path that is there as it stands may have commas.
        output: folder for studies/, status/ and status.csv, beside the inputs and not in them; it may have studies of
            other inputs.
        config: of the bundle.
        retry_refused: try those again, too, of which no image could be read.
        shards: number of parts; every one takes each so-many-th study.
        cluster: None does them here, one after the other; "local" or "slurm" hands each shard to submitit.
        allow_expressions: take values that run code, such as "$print(1)" or {"_target_": "Adam"}, and a network in
            TorchScript that does more than compute.
        options: values of the config.
    """
    folder = Path(output).resolve()
    if shards < 1:
        raise ValueError(f"shards is {shards}, expected 1 or more.")
    if folder.is_file() or not folder.parent.is_dir():
        raise ValueError(f"{folder}: expected a folder, or a new one in a folder that exists.")
    if "::" in str(folder):
        raise ValueError(f"{folder}: MONAI takes :: for a # of its own: choose another output.")
    _check_own(options)
    if not allow_expressions:
        refuse_code(options)
    paths = find_paths(inputs)
    check_apart(folder, inputs, paths)
    source, studies = Path(bundle), name_studies(paths, read_statuses(folder / "status"))
    began = stamps(folder / "status", studies)
    settings = settings_of(bundle, config, options)
    check_settings(folder, settings)

    def check(place: Path) -> None:
        check_options(place, [config], options)
        if not allow_expressions:
            refuse_programs(place, *_files_in(list(options.values())))
        if source.suffix == ".zip":
            check_zip(source)
            if "ckpt_path" not in options:
                check_weights(place)

    if source.suffix == ".zip":
        place = _unzipped(source, folder, check)
    else:
        check(place := find_bundle(bundle))
    check_made(folder, settings)
    studies = claim(folder, settings, paths)
    if done := _counts(folder, studies)[DONE]:
        print(f"{done} of {len(studies)} are done already, unless they have changed since", flush=True)
    parts = [studies[shard::shards] for shard in range(min(shards, len(studies)))]
    try:
        if cluster is None:
            for number, part in enumerate(parts, start=1):
                shard = f"shard {number} of {len(parts)}: " if len(parts) > 1 else ""
                do_part(place, config, part, folder, options, retry_refused, settings.sha256, began, shard)
        else:
            _on_cluster(parts, place, config, folder, options, retry_refused, settings.sha256, cluster)
    except KeyboardInterrupt:
        jobs = "" if cluster is None else f" (jobs that were handed to {cluster} may still run)"
        done = _counts(folder, studies)[DONE]
        say(f"stopped: {done} of {len(studies)} are done; the same command goes on with the others{jobs}")
        raise
    every = read_statuses(folder / "status")
    write_table(folder / "status.csv", every)
    counts = _counts(folder, studies)
    warned = sum(status.status == DONE and bool(status.warned) for status in _statuses(folder, studies))
    more = {DONE: f" ({warned} of them with a warning, see status.csv)"} if warned else {}
    text = ", ".join(f"{number} {status}{more.get(status, '')}" for status, number in counts.items())
    others = f" ({len(every) - len(studies)} more are of other inputs)" if len(every) > len(studies) else ""
    print(f"{len(studies)} studies in: {text}{others}; status.csv and studies: {folder}")
    if counts[DONE] + counts[REFUSED] < len(studies) or not counts[DONE]:
        kept = f" {counts[CHANGED]} keep results of what they were before, see there." if counts[CHANGED] else ""
        raise SystemExit(
            f"clinbundles predict: status.csv says why; the same command tries the failed ones again.{kept}"
        )


def do_part(
    bundle: Path,
    config: str,
    studies: Sequence[Study],
    output: Path,
    options: dict[str, Any],
    retry_refused: bool,
    settings: str = "",
    began: Mapping[str, Stamp] | None = None,
    shard: str = "",
) -> None:
    """Do those of some studies that are left, one after the other; at the end, wait for those that others have.

    Those whose status is no more what it ``began`` with are over: another process of this moment has just tried them.
    Lines begin with the ``shard``.
    """
    began = stamps(output / "status", studies) if began is None else began

    def is_over(study: Study, status: Status, source: str) -> bool:
        check_status(output, status, settings)
        if status.status in (DONE, CHANGED):
            folder = output / "studies" / study.name
            if not status.files.items() <= sizes_of(folder).items():
                if source:
                    print(f"{folder}: has no more the files that were written there: made again.")
                return False
            if (compared := compare_source(status, source)) != status:
                write_status(output / "status", compared)
            return True
        is_new = stamps(output / "status", [study])[study.name] != began.get(study.name, ())
        final = (REFUSED, FAILED) if is_new else () if retry_refused else (REFUSED,)
        return status.status in final and status.source_sha256 == source

    has_begun = False

    def do(study: Study) -> bool:
        nonlocal has_begun
        work = _work(output, study)
        try:
            lock_folder(work, doing="process")
        except ValueError:  # another process has it
            return False
        try:
            source, before = source_of(study), read_status(output / "status", study.name)
            if not is_over(study, before, source):
                if source and not has_begun:
                    say(
                        f"{shard}loading the network for the first study; once there are more, a bar or a line a minute"
                    )
                    has_begun = True
                status = do_study(bundle, config, study, output, options) if source else _unreadable(study)
                status = replace(status, source_sha256=source, settings_sha256=settings, path=str(study.path))
                write_status(output / "status", status)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            unlock_folder(work)
        return True

    held = [study for study in watch(studies, desc=f"{shard}applying", unit="study") if not do(study)]
    if held:
        print(f"waiting for {len(held)} studies that another process has", flush=True)
    for study in held:  # a process that is killed lets go of its study, which is done here then
        while not do(study):
            time.sleep(0.2)


def do_study(bundle: Path, config: str, study: Study, output: Path, options: dict[str, Any]) -> Status:
    """Run a bundle's config on one study, whose outputs take their place when all are there."""
    work, target = _work(output, study), output / "studies" / study.name
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(target)  # of a run that was killed
    began = time.monotonic()

    def status(kind: str, **facts: Any) -> Status:
        return Status(study.name, kind, seconds=round(time.monotonic() - began, 3), **facts)

    try:
        log_file = work / "log.txt"
        with (
            as_folder(study, work / "in") as images,
            log_file.open("w", encoding="utf-8", errors="backslashreplace") as log,  # a name may be no text
        ):
            if not any(is_image(path) for path in files_below(images)):  # such as Thumbs.db among the studies
                return status(REFUSED, sentence=f"{study.name}: holds no image of any kind that is read.")
            made, items, faults = work / "out", [], {}

            def run(items: Sequence[Item] | None = None) -> None:
                shutil.rmtree(made, ignore_errors=True)  # of a run that was killed
                made.mkdir()
                more = options if items is None else options | {DATA: list(items)}
                run_configs(bundle, [config], dataset_dir=str(images), output_dir=str(made), **more)

            try:
                with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                    try:
                        run()
                    except Exception as error:
                        if not is_pure(bundle):
                            raise
                        items = items_of(bundle, config, images, options)
                        faults = run_each(run, items, error)
            except Exception as error:
                sentence = (sentence_of(error) or innermost(error)).replace(str(work), study.name)
                is_of_nothing, left_out = _is_of_nothing(error), count_images(made)[1]
                if left_out is None:
                    left_out = len(items) if is_of_nothing else 0
                return status(REFUSED if is_of_nothing else FAILED, left_out=left_out, sentence=sentence)
            used, left_out, warned, warning = count_images(made)
            below, sentence = left_below(images, used, left_out)
        if not (files := sizes_of(made)):
            lines = log_file.read_text(encoding="utf-8").replace(str(work), study.name).splitlines()
            nothing = f"{study.name}: {config} has written nothing to its output_dir."
            return status(FAILED, sentence=next((line for line in lines if line.startswith(LEFT_OUT)), nothing))
        if target.exists():
            shutil.rmtree(target)
        with replacing(target) as partial:
            made.rename(partial)
        if faults:  # a pure zip has no table that counts them
            used, left_out = len(items) - len(faults), len(faults)
            names = ", ".join(faults)
            sentence = f"{left_out} images could not be used ({names}). {next(iter(faults.values()))} {sentence}"
        left_out = None if left_out is None else left_out + below
        sentence = f"{warning} {sentence}".strip()
        return status(DONE, images=used, left_out=left_out, warned=warned, files=files, sentence=sentence)
    except OSError as error:
        return status(FAILED, sentence=sentence_of(error) or str(error))


def _counts(output: Path, studies: Sequence[Study]) -> Counter[str]:
    return Counter(status.status for status in _statuses(output, studies))


def _statuses(output: Path, studies: Sequence[Study]) -> list[Status]:
    return [read_status(output / "status", study.name) for study in studies]


def _check_own(options: Mapping[str, Any]) -> None:
    """Refuse options that each study has of its own."""
    for name, instead in (("dataset_dir", "INPUTS"), ("output_dir", "OUTPUT"), ("bundle_root", "BUNDLE")):
        if name in options:
            raise ValueError(f"--{name} is set for each study by predict itself: name {instead}, without --{name}.")


def _files_in(value: Any) -> Iterator[Path]:
    """Find the files that the value of an option names, which runs no code."""
    if isinstance(value, str) and value[:1] == "$":
        value = ast.literal_eval(value[1:].strip())
    if isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _files_in(part)
    elif isinstance(value, str) and os.path.isfile(value):
        yield Path(value)


def _work(output: Path, study: Study) -> Path:
    """Folder that a study is done in: its name is plain whatever the study is called, for configs take it as text."""
    return output / "work" / hashlib.sha256(os.fsencode(study.name)).hexdigest()[:20]


def _unreadable(study: Study) -> Status:
    """Say why a study's bytes cannot be read: an answer would be of another study than its hash."""
    try:
        hash_files(study.path)
    except OSError as error:
        return Status(study.name, FAILED, sentence=sentence_of(error) or str(error))
    return Status(study.name, FAILED, sentence=f"{study.path}: could not be read a moment ago.")


def _is_of_nothing(error: BaseException | None) -> bool:
    """Tell whether a run has seen all its images, and could use none: of a packed bundle the class is another one."""
    while error is not None and type(error).__name__ != NothingUsedError.__name__:
        error = error.__cause__
    return error is not None


def _unzipped(path: Path, output: Path, check: Callable[[Path], None]) -> Path:
    """Unzip a packed bundle below the output, under its hash, so that another release does not take its place.

    One that is refused leaves nothing there.
    """
    folder = output / "bundle" / hash_file(path)[:12]
    is_new, made = not folder.is_dir(), [] if output.is_dir() else [output]
    if is_new:
        say(f"unpacking {path.name}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(folder) as partial:
                partial.mkdir()
                try:
                    check(unzip(path, partial))
                except ValueError as error:
                    raise ValueError(str(error).replace(str(partial), str(path))) from error
        except OSError:
            if not folder.is_dir():  # that of another process, which was faster
                raise
        finally:
            for empty in (folder.parent, *made):
                with contextlib.suppress(OSError):
                    empty.rmdir()
    (bundle,) = folder.iterdir()
    if not is_new:
        check(bundle)
    return bundle.resolve()


def _on_cluster(
    parts: Sequence[Sequence[Study]],
    bundle: Path,
    config: str,
    output: Path,
    options: dict[str, Any],
    retry_refused: bool,
    settings: str,
    cluster: str,
) -> None:
    import submitit  # only needed here

    executor = submitit.AutoExecutor(folder=output / "jobs", cluster=cluster)
    executor.update_parameters(timeout_min=24 * 60, name="predict")
    rest = (output, options, retry_refused, settings)
    jobs = [executor.submit(do_part, bundle, config, part, *rest) for part in parts]
    say(f"{len(jobs)} jobs handed to {cluster}; their logs: {executor.folder}")
    with watched(output / "status", [study for part in parts for study in part]):
        for job in jobs:
            if (error := job.exception()) is not None:
                print(error)
