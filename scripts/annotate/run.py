"""``clinbundles annotate``: serve the page, and write the list of points at the end."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from clinbundles.transforms.readers.coco import read_coco


def annotate(
    images: str,
    boxes: str,
    *,
    annotator: str = "annotator",
    output: str | None = None,
    n_points: int = 4,
    seed: int = 0,
    ask: str = "random",
    bundle: str = "pace_cell_segmentation",
    ckpt_path: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8008,
    token: str | None = None,
) -> None:
    """Serve a page on which a person labels points in the boxes of cells: 1 cell, 0 background, u undo.

    Every answer is saved at once, and the same command goes on where it stopped. The result is a COCO list with
    point_coords and point_labels, which clinbundles prepare coco takes; Ctrl-C ends the page and writes it.

    Args:
        images: folder of the images.
        boxes: COCO list of them with a box for each cell; no masks are needed.
        annotator: name of the person; each has answers of his own.
        output: the list to write; the name of the boxes with "_points" and the annotator if not given.
        n_points: points of each box.
        seed: of the random points, which are those of clinbundles prepare with the same seed.
        ask: random points, or uncertain: where the network of the bundle is least certain.
        bundle: whose inference is asked.
        ckpt_path: its weights; those of the bundle if not given.
        host: address to serve at. Beyond this computer every request needs the token.
        port: to serve at.
        token: a secret that the address of the page holds; made up where the host needs one.
    """
    import uvicorn

    from .answers import Answers
    from .app import LOOPBACK, make_app
    from .questions import Points, make_questions

    if ask not in ("random", "uncertain"):
        raise ValueError(f"ask is {ask!r}, expected random or uncertain.")
    listed = read_coco(boxes)
    questions, left_out = make_questions(Path(images), listed, n_points=n_points)
    person = re.sub(r"[^\w-]+", "_", annotator).strip("_") or "annotator"
    target = Path(output) if output else listed.path.with_name(f"{listed.path.stem}_points_{person}.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    answers = Answers(target.with_suffix(".jsonl"), listed, annotator=person, n_points=n_points, seed=seed, ask=ask)
    model = None
    if ask == "uncertain":
        from .model import network_model

        model = network_model(bundle, ckpt_path)
    points = Points(listed, n_points=n_points, seed=seed, model=model)
    n_boxes = len(questions) // n_points
    total = n_boxes + sum(left_out.values())
    print(f"{total} boxes came in, {n_boxes} are used, {total - n_boxes} are left out")
    for reason, count in left_out.items():
        print(f"  {count}: {reason}")
    if host not in LOOPBACK and token is None:
        token = secrets.token_urlsafe(16)
    app = make_app(questions, points, answers, annotator=person, token=token or "", host=host)
    print(f"{len(answers.by_name)} of {len(questions)} points have an answer")
    print(f"open http://{host}:{port}/" + (f"?token={token}" if token else ""), flush=True)
    try:
        uvicorn.run(app, host=host, port=port, log_level="warning")
    finally:
        count = answers.write_list(target)
        median = answers.median_seconds
        print(f"{count} answers" + ("" if median is None else f", median {median} s an answer") + f": {target}")
        if points.n_fallbacks:
            print(f"{points.n_fallbacks} points were random: the network found no cell in their box")
