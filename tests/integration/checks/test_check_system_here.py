"""The `system` check on this machine, held against what the machine's own tools say."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import trio

from sixfbd.plugin import Duration, Status
from sixfbd_plugins.checks.machine.processes import Chosen
from sixfbd_plugins.checks.machine.readings import Globs
from sixfbd_plugins.checks.system import SystemCheck, SystemOptions


async def within(seconds, ask, fits):
    """Ask again until the answer fits; fails after `seconds`."""
    with trio.fail_after(seconds):
        for _ in range(1000):
            answer = await ask()
            if fits(answer):
                return answer
            await trio.sleep(0.2)
    raise AssertionError(f"nothing fitted; the last answer: {answer}")


def values_of(report):
    return {(s.metric, *(value for _, value in s.labels)): s.value for s in report.samples}


async def test_a_report_holds_every_part_and_only_declared_metrics(context):
    report = await SystemCheck(SystemOptions(), context).run(None)
    declared = {metric.name: metric.labels for metric in SystemCheck.metrics}
    assert all(tuple(name for name, _ in s.labels) == declared[s.metric] for s in report.samples)
    names = {s.metric for s in report.samples}
    for part in (
        "system_cpu_usage_ratio", "node_cpu_seconds_total", "system_memory_available_bytes", "system_memory_usage_ratio",
        "system_swap_usage_ratio", "node_load1", "node_boot_time_seconds", "system_uptime_seconds", "node_processes_pids",
    ):  # fmt: skip
        assert part in names
    assert "troubles" not in report.summary
    keys = [(s.metric, s.labels) for s in report.samples]
    assert len(keys) == len(set(keys))


async def test_values_agree_with_the_machine(context):
    values = values_of(await SystemCheck(SystemOptions(interfaces=Globs()), context).run(None))
    assert 0.0 <= values["system_cpu_usage_ratio",] <= 1.0
    memory = {
        line.split(":")[0]: int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text("ascii").splitlines()
    }
    assert values["system_memory_total_bytes",] == memory["MemTotal"]
    expected = 1 - memory["MemAvailable"] / memory["MemTotal"]
    assert values["system_memory_usage_ratio",] == pytest.approx(expected, abs=0.1)
    assert values["node_boot_time_seconds",] + values["system_uptime_seconds",] == pytest.approx(time.time(), abs=5)
    assert any(key[0] == "node_network_receive_bytes_total" and key[1] == "lo" for key in values)


async def test_the_loopback_interface_is_left_out_by_default(context):
    values = values_of(await SystemCheck(SystemOptions(), context).run(None))
    assert not [key for key in values if key[0].startswith("node_network") and key[1] == "lo"]


async def test_disk_usage_agrees_with_df(context, tmp_path):
    values = values_of(await SystemCheck(SystemOptions(mounts=Globs(include=("/",))), context).run(None))
    [total, available] = [
        int(word) for word in subprocess.run(
            ["df", "--block-size=1", "--output=size,avail", "/"], capture_output=True, text=True, check=True, timeout=30
        ).stdout.split()[-2:]
    ]  # fmt: skip
    [size] = [value for key, value in values.items() if key[0] == "node_filesystem_size_bytes"]
    [free] = [value for key, value in values.items() if key[0] == "node_filesystem_avail_bytes"]
    assert size == total
    assert free == pytest.approx(available, rel=0.05)


async def test_usage_counts_from_the_last_run(context):
    check = SystemCheck(SystemOptions(), context)
    first = await check.run(None)
    assert values_of(first)["system_cpu_usage_ratio",] <= 1.0
    burn = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    burners = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(os.cpu_count() or 1)]
    try:
        assert await within(15, lambda: check.run(None), lambda r: values_of(r)["system_cpu_usage_ratio",] >= 0.8)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait(10)


async def test_a_chosen_process_that_dies_degrades_the_report_and_is_named(context, tmp_path):
    pid_file = tmp_path / "shop.pid"
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "shop-of-this-test"])
    try:
        pid_file.write_text(str(child.pid))
        options = SystemOptions(
            processes=(Chosen(pid_file=str(pid_file)), Chosen(name="by-pattern", match="shop-of-this-test$"))
        )
        check = SystemCheck(options, context)
        report = await check.run(None)
        values = values_of(report)
        assert "not running" not in report.summary
        assert values["system_process_up", "shop"] == values["system_process_up", "by-pattern"] == 1
        assert values["system_process_count", "by-pattern"] == 1
        assert values["system_process_start_time_seconds", "shop"] == psutil.Process(child.pid).create_time()
        child.kill()  # and not waited for: a zombie does not run
        report = await within(10, lambda: check.run(None), lambda r: "by-pattern is not running" in r.summary)
        assert report.status is Status.DEGRADED
        assert "process shop is not running; process by-pattern is not running" in report.summary
        assert values_of(report)["system_process_up", "shop"] == 0
    finally:
        child.kill()
        child.wait(10)


def refuse():
    raise PermissionError(13, "Permission denied", "/proc/stat")


async def test_parts_of_a_restricted_machine_that_cannot_be_read_are_named_and_the_others_reported(
    context, monkeypatch
):
    for name in ("cpu_times", "virtual_memory", "disk_partitions", "process_iter"):
        monkeypatch.setattr(psutil, name, lambda *args, **options: refuse())
    report = await SystemCheck(SystemOptions(), context).run(None)
    assert report.status is Status.DEGRADED
    for part in ("CPU", "memory", "mount table", "processes"):
        assert f"{part} cannot be read: PermissionError: " in report.summary
    assert {"node_load1", "node_boot_time_seconds"} <= {sample.metric for sample in report.samples}


async def test_a_part_that_hangs_is_named_once_begun_and_costs_no_other(context, monkeypatch):
    """A process whose command line cannot be read as long as the kernel holds it, say."""
    released, begun = threading.Event(), []

    def hang(*args, **options):
        begun.append(1)
        released.wait(30)
        return iter(())

    monkeypatch.setattr(psutil, "process_iter", hang)
    check = SystemCheck(SystemOptions(mount_timeout=Duration(0.5)), context)
    try:
        for words in ("processes cannot be read: no answer within ", "processes cannot be read: still does not answer"):
            with trio.fail_after(4):
                report = await check.run(None)
            assert words in report.summary
            assert report.status is Status.UNHEALTHY, "what is known of the processes holds until it is stale"
            assert {"node_load1", "system_cpu_usage_ratio", "node_filesystem_size_bytes"} <= {
                sample.metric for sample in report.samples
            }
        assert begun == [1]
    finally:
        released.set()


async def test_a_report_has_its_series_in_the_same_order_each_time(context):
    check = SystemCheck(SystemOptions(), context)
    first, second = [[(s.metric, s.labels) for s in (await check.run(None)).samples] for _ in range(2)]
    assert first == second


async def test_a_run_that_may_take_no_longer_than_one_file_system_still_reads_everything(context):
    check = SystemCheck(SystemOptions(), context)
    with trio.fail_after(float(check.options.mount_timeout)):
        report = await check.run(None)
    assert report.status is Status.HEALTHY, report.summary
