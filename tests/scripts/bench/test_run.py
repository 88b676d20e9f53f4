import inspect
from typing import Any

import pytest

from clinbundles.scripts.bench import run

BENCHES = (run.blur, run.two_stage, run.training)


@pytest.mark.parametrize(("device", "size", "side"), [("cpu", None, "768"), ("cuda", 512, None)])
def test_all_benches_run_on_one_device_into_one_file_at_sizes_of_its_kind(
    device: str, size: int | None, side: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    for bench in BENCHES:
        takes = inspect.signature(bench.main)  # a call that the real one would refuse fails here
        monkeypatch.setattr(bench, "main", lambda takes=takes, **given: calls.append(takes.bind(**given).arguments))
    run.main(device=device, threads=1, json="bench.json")
    assert [{name: call[name] for name in ("device", "threads", "json")} for call in calls] == 3 * [
        {"device": device, "threads": 1, "json": "bench.json"}
    ]
    assert calls[1].get("sizes") == side  # on a GPU the bench's own, up to 4096
    assert calls[2].get("size") == size
