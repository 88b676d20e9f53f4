"""How busy the machine is while a run goes on, under the names of MLflow's system metrics."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch

INTERVAL_S = 10.0
STAT, MEMINFO = Path("/proc/stat"), Path("/proc/meminfo")


class MachineMonitor:
    """Measure processors, memory, disk and the GPU in use, each time at least INTERVAL_S after the last.

    MLflow's own monitor needs psutil, and warns from a thread of its own when a server is lost. Processors and memory
    are read where Linux tells them.

    Args:
        folder: of the disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self._times, self._due = _processor_times(), time.monotonic() + INTERVAL_S

    def measure(self, *, always: bool = False) -> dict[str, float]:
        """Give percentages and megabytes since the last measurement; nothing if that is not long ago.

        Args:
            always: measure however short a time ago that is.
        """
        if not always and time.monotonic() < self._due:
            return {}
        self._due = time.monotonic() + INTERVAL_S
        self.count += 1
        values = self._processors() | _memory()
        disk = shutil.disk_usage(self.folder)
        values |= {"disk_usage_percentage": 100 * disk.used / disk.total, "disk_available_megabytes": disk.free / 1e6}
        if torch.cuda.is_initialized():  # the one in use: to ask another would occupy it
            index = torch.cuda.current_device()
            free, total = torch.cuda.mem_get_info(index)
            values[f"gpu_{index}_memory_usage_megabytes"] = (total - free) / 1e6
            values[f"gpu_{index}_memory_usage_percentage"] = 100 * (total - free) / total
        return {f"system/{name}": round(value, 1) for name, value in values.items()}

    def _processors(self) -> dict[str, float]:
        before, self._times = self._times, _processor_times()
        if before is None or self._times is None or self._times[1] <= before[1]:
            return {}
        busy, total = (now - then for now, then in zip(self._times, before, strict=True))
        return {"cpu_utilization_percentage": 100 * busy / total}


def _processor_times() -> tuple[int, int] | None:
    """Give the ticks that all processors were busy and the ticks that there were, since the machine started."""
    if not STAT.is_file():
        return None
    ticks = [int(word) for word in STAT.read_text(encoding="utf-8").partition("\n")[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle, and waiting for a disk


def _memory() -> dict[str, float]:
    if not MEMINFO.is_file():
        return {}
    lines = [line.split() for line in MEMINFO.read_text(encoding="utf-8").splitlines()]
    kilobytes = {words[0].rstrip(":"): int(words[1]) for words in lines}
    total = kilobytes["MemTotal"]
    used = total - kilobytes["MemAvailable"]
    return {"system_memory_usage_megabytes": used * 1.024e-3, "system_memory_usage_percentage": 100 * used / total}
