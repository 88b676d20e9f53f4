"""Apply a bundle, or a packed zip of one, to thousands of studies: a killed run is started again, and nothing is lost.

    clinbundles predict dist/gaze_polyp_segmentation_v0.1.0.zip /data/studies /data/out
    clinbundles predict two_stage_segmentation list.txt /data/out --shards 8 --cluster slurm

``studies/NAME/`` has what the bundle's inference writes for a study, and appears at once, when all of it is there;
``status/NAME.json`` says what became of it, and ``status.csv`` lists them all. A study that is done or cannot be read
is not tried again, one that failed is. Several processes may work on one folder: each study is locked meanwhile.
An answer stands only for the bytes, the bundle, the config and the options that it was made of: see settings.json.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clinbundles.engines.folder_lock import lock_folder, unlock_folder
from clinbundles.engines.outputs.files import distinct_stems, remove_partials, replacing
from clinbundles.engines.outputs.per_image import NothingUsedError, read_per_image
from clinbundles.engines.sentences import sentence_of
from clinbundles.scripts.bars import watch
from clinbundles.scripts.bundle import check_options, find_bundle, run_configs
from clinbundles.scripts.pack.archive import unzip

from .hashes import source_of
from .inputs import check_apart, find_paths
from .settings import check_answer, check_made, check_settings, check_status, claim, settings_of
from .studies import (
    DONE,
    FAILED,
    REFUSED,
    Stamp,
    Status,
    Study,
    as_folder,
    read_status,
    stamps,
    write_status,
    write_table,
)


def predict(
    bundle: str,
    inputs: str,
    output: str,
    *,
    config: str = "inference",
    retry_refused: bool = False,
    shards: int = 1,
    cluster: str | None = None,
    **options: Any,
) -> None:
    """Apply a bundle to each study of a folder or a list; started again, it goes on with those that are left.

    Args:
        bundle: name of a bundle, in ./bundles or in the checkout of this project, a folder, or a zip of clinbundles
            pack.
        inputs: folders whose files and folders are a study each, images, and .txt or .csv lists of paths, comma
            separated; a path that is there as it stands may have commas.
        output: folder for studies/, status/ and status.csv.
        config: of the bundle.
        retry_refused: try those again, too, of which no image could be read.
        shards: number of parts; every one takes each so-many-th study.
        cluster: None does them here, one after the other; "local" or "slurm" hands each shard to submitit.
        options: values of the config.
    """
    folder, paths = Path(output), find_paths(inputs)
    check_apart(folder, inputs, paths)
    names = distinct_stems(paths)
    studies = [Study(names[path], path) for path in paths]
    if shards < 1:
        raise ValueError(f"shards is {shards}, expected 1 or more.")
    if folder.is_file() or not folder.resolve().parent.is_dir():
        raise ValueError(f"{folder}: expected a folder, or a new one in a folder that exists.")
    source, began = Path(bundle), stamps(folder / "status", studies)
    settings = settings_of(bundle, config, options)
    check_settings(folder, settings)
    place = _unzipped(source, folder) if source.suffix == ".zip" else find_bundle(bundle)
    check_options(place, [config], options)
    check_made(folder, settings, studies)
    claim(folder, settings)
    parts = [studies[shard::shards] for shard in range(shards)]
    if cluster is None:
        for part in parts:
            do_part(place, config, part, folder, options, retry_refused, settings.sha256, began)
    else:
        _on_cluster(parts, place, config, folder, options, retry_refused, settings.sha256, cluster)
    every = [read_status(folder / "status", study.name) for study in studies]
    write_table(folder / "status.csv", every)
    counts = Counter(status.status for status in every)
    text = ", ".join(f"{number} {status}" for status, number in counts.items())
    print(f"{len(studies)} studies in: {text}; status.csv and studies: {folder}")
    if counts[DONE] + counts[REFUSED] < len(studies) or not counts[DONE]:
        raise SystemExit("clinbundles predict: status.csv says why; the same command tries the failed ones again.")


def do_part(
    bundle: Path,
    config: str,
    studies: Sequence[Study],
    output: Path,
    options: dict[str, Any],
    retry_refused: bool,
    settings: str = "",
    began: Mapping[str, Stamp] | None = None,
) -> None:
    """Do those of some studies that are left, one after the other; at the end, wait for those that others have.

    Those whose status is no more what it ``began`` with are over: another process of this moment has just tried them.
    """
    final = (DONE,) if retry_refused else (DONE, REFUSED)
    began = stamps(output / "status", studies) if began is None else began

    def is_over(study: Study, source: str) -> bool:
        status = read_status(output / "status", study.name)
        check_status(output, status, settings)
        check_answer(output, study, status, source)
        is_new = stamps(output / "status", [study])[study.name] != began[study.name]
        return status.status in ((*final, REFUSED, FAILED) if is_new else final) and status.source_sha256 == source

    def do(study: Study) -> bool:
        work = output / "work" / study.name
        try:
            lock_folder(work, doing="process")
        except ValueError:  # another process has it
            return False
        try:
            source = source_of(study)
            if not is_over(study, source):
                status = do_study(bundle, config, study, output, options)
                write_status(output / "status", replace(status, source_sha256=source, settings_sha256=settings))
        finally:
            shutil.rmtree(work, ignore_errors=True)
            unlock_folder(work)
        return True

    held = [study for study in watch(studies, desc="applying", unit="study") if not do(study)]
    if held:
        print(f"waiting for {len(held)} studies that another process has", flush=True)
    for study in held:  # a process that is killed lets go of its study, which is done here then
        while not do(study):
            time.sleep(0.2)


def do_study(bundle: Path, config: str, study: Study, output: Path, options: dict[str, Any]) -> Status:
    """Run a bundle's config on one study, whose outputs take their place when all are there."""
    work, target = output / "work" / study.name, output / "studies" / study.name
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(target)  # of a run that was killed
    began = time.monotonic()

    def status(kind: str, **facts: Any) -> Status:
        return Status(study.name, kind, seconds=round(time.monotonic() - began, 3), **facts)

    try:
        with as_folder(study, work / "in") as images, (work / "log.txt").open("w") as log:
            made = work / "out"
            shutil.rmtree(made, ignore_errors=True)  # of a run that was killed
            made.mkdir()
            try:
                with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                    run_configs(bundle, [config], dataset_dir=str(images), output_dir=str(made), **options)
            except Exception as error:
                sentence = (sentence_of(error) or f"{type(error).__name__}: {error}").replace(str(work), study.name)
                _, left_out = _count(made)
                return status(REFUSED if _is_of_nothing(error) else FAILED, left_out=left_out or 0, sentence=sentence)
            used, left_out = _count(made)
        if not any(path.is_file() for path in made.rglob("*")):
            return status(FAILED, sentence=f"{study.name}: {config} has written nothing to its output_dir.")
        if target.exists():
            shutil.rmtree(target)
        with replacing(target) as partial:
            made.rename(partial)
        return status(DONE, images=used, left_out=left_out)
    except OSError as error:
        return status(FAILED, sentence=sentence_of(error) or str(error))


def _count(made: Path) -> tuple[int | None, int | None]:
    """Images of a table that were used, and that were left out; None where there is no table."""
    try:
        table, failed = read_per_image(made / "per_image.csv")
    except (FileNotFoundError, ValueError):
        return None, None
    return len(table), failed


def _is_of_nothing(error: BaseException | None) -> bool:
    """Tell whether a run has seen all its images, and could use none: of a packed bundle the class is another one."""
    while error is not None and type(error).__name__ != NothingUsedError.__name__:
        error = error.__cause__
    return error is not None


def _unzipped(path: Path, output: Path) -> Path:
    """Unzip a packed bundle below the output, under its hash, so that another release does not take its place."""
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    folder = output / "bundle" / digits
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as partial:
            partial.mkdir()
            unzip(path, partial)
    (bundle,) = folder.iterdir()
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
    for job in [executor.submit(do_part, bundle, config, part, *rest) for part in parts]:
        if (error := job.exception()) is not None:
            print(error)
