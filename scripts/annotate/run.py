"""``clinbundles annotate``: serve the page, and write the list of points at the end."""

from __future__ import annotations

import re
import secrets
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from clinbundles.scripts.prepare.datalist import check_seed
from clinbundles.transforms.readers.coco import read_coco


def annotate(
    images: str,
    boxes: str,
    *,
    annotator: str = "annotator",
    output: str | None = None,
    n_points: int = 4,
    seed: int = 0,
    order: Literal["listed", "shuffled"] = "listed",
    ask: Literal["random", "uncertain"] = "random",
    bundle: str = "pace_cell_segmentation",
    ckpt_path: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8008,
    token: str | None = None,
) -> None:
    """Serve a page on which a person labels points in the boxes of cells: 1 cell, 0 background, u undo.

    Every answer is saved at once, and the same command goes on where it stopped, also with more points a box. The
    result is a COCO list with point_coords and point_labels, which clinbundles prepare coco takes. It is written when
    all points have an answer, and when Ctrl-C ends the page.

    Args:
        images: folder of the images.
        boxes: COCO list of them with a box for each cell; no masks are needed.
        annotator: name of the person; each has answers of his own.
        output: the list to write; the name of the boxes with "_points" and the annotator if not given.
        n_points: points of each box.
        seed: of the random points, which are those of clinbundles prepare with the same seed, and of the order.
        order: of the boxes, as listed or shuffled.
        ask: random points, or uncertain: where the network of the bundle is least certain.
        bundle: whose inference is asked.
        ckpt_path: its weights; those of the bundle if not given.
        host: address to serve at. Beyond this computer every request needs the token.
        port: to serve at; 0 takes any that is free.
        token: a secret that the address of the page holds; made up where the host needs one.
    """
    import uvicorn

    from .answers import Answers, sole_use
    from .app import LOOPBACK, make_app
    from .questions import Points, make_questions

    check_seed(seed)
    listed = read_coco(boxes)
    person = re.sub(r"[^\w-]+", "_", annotator).strip("_") or "annotator"
    target = Path(output) if output else listed.path.with_name(f"{listed.path.stem}_points_{person}.json")
    if target.suffix != ".json" or target.resolve() == listed.path:
        raise ValueError(f"--output is {target}: expected a name of its own that ends in .json")
    with open_port(host, port) as listener:
        questions, left_out = make_questions(Path(images), listed, n_points=n_points, order=order, seed=seed)
        kept = {question.annotation_id: question.box for question in questions}
        model = None
        if ask == "uncertain":
            from .model import network_model

            model = network_model(bundle, ckpt_path)
        points = Points(listed, seed=seed, model=model)
        target.parent.mkdir(parents=True, exist_ok=True)
        with sole_use(target.with_suffix(".jsonl")):
            answers = Answers(target.with_suffix(".jsonl"), listed, annotator=annotator, seed=seed, ask=ask)
            if host not in LOOPBACK:
                token = token or secrets.token_urlsafe(16)
            app = make_app(
                questions,
                points,
                answers,
                annotator=annotator,
                token=token or "",
                host=host,
                finish=lambda: answers.write_list(target, boxes=kept),
            )
            reasons = f" ({left_out})" if left_out.counts else ""
            total = len(kept) + left_out.total()
            print(f"{total} boxes came in, {len(kept)} are used, {left_out.total()} are left out{reasons}")
            n_answers = sum(question.name in answers.by_name for question in questions)
            print(f"{n_answers} of {len(questions)} points have an answer")
            address = f"[{host}]" if ":" in host else host
            secret = f"?token={quote(token, safe='')}" if token else ""
            print(f"open http://{address}:{listener.getsockname()[1]}/{secret}", flush=True)
            before = signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                with suppress(KeyboardInterrupt):
                    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
            finally:
                signal.signal(signal.SIGTERM, before)
                count = answers.write_list(target, boxes=kept)
                median = answers.median_seconds
                print(f"{count} answers" + ("" if median is None else f", median {median} s an answer") + f": {target}")
                if points.fallbacks:
                    print(f"{len(points.fallbacks)} points were random: the network found no cell in their box")


def open_port(host: str, port: int) -> socket.socket:
    """Listen at an address.

    Raises:
        ValueError: it is not to be had.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"--port is {port}: expected a whole number from 0 to {2**16 - 1}")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(f"--host {host} --port {port}: cannot be served at ({error.strerror}).") from error
