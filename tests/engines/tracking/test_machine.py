import os
import time

import pytest

from clinbundles.engines.tracking import machine
from clinbundles.engines.tracking.machine import STAT, MachineMonitor

on_linux = pytest.mark.skipif(not STAT.is_file(), reason="no /proc")


@on_linux
def test_a_busy_processor_is_seen_and_shares_are_percentages(tmp_path):
    monitor = MachineMonitor(tmp_path)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    values = monitor.measure(always=True)
    assert values["system/cpu_utilization_percentage"] > 40 / os.cpu_count()
    for name in ("cpu_utilization", "system_memory_usage", "disk_usage"):
        assert 0 < values[f"system/{name}_percentage"] <= 100
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    share = values["system/system_memory_usage_megabytes"] / total
    assert 100 * share == pytest.approx(values["system/system_memory_usage_percentage"], abs=0.2)


def test_it_measures_no_oftener_than_its_interval(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "INTERVAL_S", 3600.0)
    monitor = MachineMonitor(tmp_path)
    assert monitor.measure() == {}
    assert monitor.measure(always=True)
    assert (monitor.measure(), monitor.count) == ({}, 1)


def test_where_linux_tells_nothing_the_disk_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "STAT", tmp_path / "none")
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "none")
    names = set(MachineMonitor(tmp_path).measure(always=True))
    assert {name for name in names if "gpu" not in name} == {
        "system/disk_usage_percentage",
        "system/disk_available_megabytes",
    }
