"""The parts of the `system` check that need no real machine: choosing, counting, reading a unit's groups."""

import os
import subprocess
import sys
import threading

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd_plugins.checks.machine.mounts import Mount, MountReader, chosen, is_storage, measured
from sixfbd_plugins.checks.machine.processes import Chosen, pid_of, reading, unit_pids
from sixfbd_plugins.checks.machine.readings import Globs, busy_ratio
from sixfbd_plugins.checks.system import SystemOptions

ROOT = Mount("/dev/vda1", "ext4", "/")


def test_usage_is_the_share_of_time_that_was_neither_idle_nor_waiting():
    before = {"user": 10.0, "idle": 100.0, "iowait": 5.0}
    assert busy_ratio(before, {"user": 11.0, "idle": 102.0, "iowait": 6.0}) == 0.25


def test_usage_without_time_between_is_zero():
    assert busy_ratio({"user": 1.0, "idle": 1.0}, {"user": 1.0, "idle": 1.0}) == 0.0


def test_a_mode_that_goes_backwards_does_not_count():
    assert busy_ratio({"user": 1.0, "iowait": 9.0}, {"user": 2.0, "iowait": 8.0}) == 1.0


@given(st.dictionaries(st.sampled_from(["user", "system", "idle", "iowait", "steal"]), st.floats(0, 1e9)), st.data())
def test_usage_is_always_between_zero_and_one(before, data):
    after = {mode: data.draw(st.floats(0, 1e9)) for mode in before}
    assert 0.0 <= busy_ratio(before, after) <= 1.0


def test_globs_take_the_usual_names_without_the_excluded_ones():
    globs = Globs(exclude=("lo", "veth*"))
    assert [name for name in ("lo", "eth0", "veth12") if globs.take(name)] == ["eth0"]


def test_globs_with_an_include_take_nothing_else():
    globs = Globs(include=("/srv*",), exclude=("/srv/tmp",))
    assert globs.take("/srv/data", usual=False)
    assert not globs.take("/srv/tmp")
    assert not globs.take("/")


@pytest.mark.parametrize("fstype", ["tmpfs", "squashfs", "proc", "cgroup2", "autofs", "fuse.sshfs", "overlay"])
def test_kernel_memory_and_image_file_systems_are_not_storage(fstype):
    assert not is_storage(Mount("x", fstype, "/x"))


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs", "zfs", "nfs4", "cifs", "virtiofs", "vfat"])
def test_disks_and_network_file_systems_are_storage(fstype):
    assert is_storage(Mount("x", fstype, "/x"))


def test_a_containers_root_is_storage():
    assert is_storage(Mount("overlay", "overlay", "/"))


def test_a_device_mounted_at_many_places_is_read_once_at_the_shortest():
    table = [Mount("/dev/vda1", "ext4", "/var/lib/sixfbd"), ROOT, Mount("/dev/vda1", "ext4", "/usr")]
    assert chosen(table, Globs()) == [ROOT]


def test_of_two_mounts_at_one_place_the_later_is_read():
    upper = Mount("/dev/sdb1", "xfs", "/srv")
    assert chosen([Mount("/dev/sda1", "ext4", "/srv"), upper], Globs()) == [upper]


def test_an_included_tmpfs_is_read_although_it_is_no_storage():
    tmp = Mount("tmpfs", "tmpfs", "/tmp")
    assert chosen([ROOT, tmp, Mount("tmpfs", "tmpfs", "/run")], Globs(include=("/tmp",))) == [tmp]


def stat_of(**fields: int) -> os.statvfs_result:
    names = (
        "f_bsize",
        "f_frsize",
        "f_blocks",
        "f_bfree",
        "f_bavail",
        "f_files",
        "f_ffree",
        "f_favail",
        "f_flag",
        "f_namemax",
    )
    return os.statvfs_result([fields.get(name, 0) for name in names])


def test_usage_leaves_out_roots_reserve_as_df_does():
    samples = {s.metric: s.value for s in measured(ROOT, stat_of(f_frsize=4096, f_blocks=100, f_bfree=20, f_bavail=10))}
    assert samples["system_filesystem_usage_ratio"] == pytest.approx(80 / 90)
    assert samples["node_filesystem_avail_bytes"] == 10 * 4096


def test_a_file_system_without_inode_counts_reports_none():
    samples = {s.metric for s in measured(ROOT, stat_of(f_frsize=1, f_blocks=10, f_bfree=5, f_bavail=5))}
    assert samples.isdisjoint(
        {"node_filesystem_files", "node_filesystem_files_free", "system_filesystem_inodes_usage_ratio"}
    )


async def test_a_mount_that_hangs_is_named_and_asked_only_once():
    released, asked = threading.Event(), []

    def statvfs(mountpoint: str) -> os.statvfs_result:
        asked.append(mountpoint)
        if mountpoint == "/nfs":
            released.wait(10)
        return stat_of(f_frsize=1, f_blocks=10, f_bfree=5, f_bavail=5)

    reader = MountReader(statvfs)
    mounts = [ROOT, Mount("host:/x", "nfs4", "/nfs")]
    try:
        samples, troubles = await reader.read(mounts, 0.05)
        assert troubles == ["/nfs: no answer within 50ms"]
        assert {
            dict(s.labels)["mountpoint"]: s.value for s in samples if s.metric == "node_filesystem_device_error"
        } == {
            "/": 0.0,
            "/nfs": 1.0,
        }
        assert (await reader.read(mounts, 0.05))[1] == ["/nfs: still does not answer"]
        assert asked.count("/nfs") == 1
    finally:
        released.set()


async def test_a_mount_that_cannot_be_read_is_named_and_the_others_are_read(tmp_path):
    root = os.statvfs("/")
    size_of_root = root.f_blocks * root.f_frsize
    reader = MountReader()
    samples, troubles = await reader.read([ROOT, Mount("/dev/sdx", "ext4", str(tmp_path / "gone"))], 5.0)
    assert troubles == [f"{tmp_path / 'gone'}: No such file or directory"]
    assert [s.value for s in samples if s.metric == "node_filesystem_size_bytes"] == [size_of_root]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "shop"}, "a process needs match, pid_file or unit"),
        ({"unit": "a", "pid_file": "/b"}, "not by both"),
        ({"match": "("}, "is not an RE2 expression: missing )"),
        ({"match": "x", "mtach": "y"}, "unknown field"),
    ],
)
def test_a_process_entry_that_makes_no_sense_is_refused(entry, message):
    with pytest.raises(msgspec.ValidationError, match=message.replace("(", r"\(").replace(")", r"\)")):
        msgspec.convert(entry, Chosen)


@pytest.mark.parametrize(
    ("entry", "label"),
    [
        (Chosen(name="shop", match="node"), "shop"),
        (Chosen(match="node"), "node"),
        (Chosen(pid_file="/run/shop/web.pid"), "web"),
        (Chosen(unit="shop.service", match="node"), "shop"),
        (Chosen(unit="backup.timer"), "backup.timer"),
    ],
)
def test_a_process_without_a_name_is_called_after_how_it_is_found(entry, label):
    assert entry.label == label


def test_two_processes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="'shop' is used twice"):
        SystemOptions(processes=(Chosen(name="shop", match="a"), Chosen(name="shop", match="b")))


@pytest.mark.parametrize(("text", "pids"), [("123\n", [123]), ("77 extra", [77]), ("", []), ("abc", []), ("-1", [])])
def test_a_pid_file_holds_one_number(tmp_path, text, pids):
    (tmp_path / "x.pid").write_text(text)
    assert pid_of(str(tmp_path / "x.pid")) == pids


def test_a_pid_file_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", tmp_path, "/dev/zero", "/dev/null"):
        assert pid_of(str(odd)) == []


def test_a_pid_file_that_is_missing_names_nobody(tmp_path):
    assert pid_of(str(tmp_path / "x.pid")) == []


@pytest.fixture
def cgroups(tmp_path):
    for folder, pids in (
        ("system.slice/shop.service", "11\n12\n"),
        ("system.slice/shop.service/worker", "13\n"),
        ("system.slice/system-getty.slice/getty@tty1.service", "21\n"),
        ("user.slice/user-1000.slice/user@1000.service/shop.service", "99\n"),
        ("system.slice/empty.service", ""),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "cgroup.procs").write_text(pids)
    return tmp_path


@pytest.mark.parametrize(
    ("unit", "pids"),
    [
        ("shop.service", [11, 12, 13]),
        ("shop", [11, 12, 13]),
        ("getty@tty1.service", [21]),
        ("empty.service", []),
        ("none.service", []),
    ],
)
def test_a_units_processes_are_those_of_its_group_and_below(cgroups, unit, pids):
    assert unit_pids(unit, [cgroups / "missing", cgroups]) == pids


def test_a_chosen_process_that_runs_is_measured_and_one_that_does_not_is_down(tmp_path):
    (tmp_path / "me.pid").write_text(str(os.getpid()))
    read = reading([Chosen(pid_file=str(tmp_path / "me.pid")), Chosen(name="none", match="no-such-process-anywhere")])
    samples = {(s.metric, dict(s.labels).get("process")): s.value for s in read()}
    assert samples["system_process_up", "me"] == samples["system_process_count", "me"] == 1
    assert samples["system_process_start_time_seconds", "me"] == psutil.Process().create_time()
    assert samples["system_process_resident_memory_bytes", "me"] > 1_000_000
    assert samples["system_process_open_fds", "me"] >= 3
    assert samples["system_process_up", "none"] == samples["system_process_count", "none"] == 0
    assert ("system_process_cpu_seconds_total", "none") not in samples


def test_a_pattern_narrows_a_pid_file_that_may_be_stale(tmp_path):
    (tmp_path / "me.pid").write_text(str(os.getpid()))
    read = reading([Chosen(name="shop", pid_file=str(tmp_path / "me.pid"), match="^certainly-not-python$")])
    assert [s.value for s in read() if s.metric == "system_process_up"] == [0.0]


def test_a_pattern_does_not_find_the_daemon_itself():
    code = (
        "from sixfbd_plugins.checks.machine.processes import Chosen, reading;"
        "samples = reading([Chosen(name='me', match='word-of-this-test')])();"
        "print([s.value for s in samples if s.metric == 'system_process_count'])"
    )
    done = subprocess.run([sys.executable, "-c", code, "word-of-this-test"], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[0]\n", done.stderr


def test_states_are_counted_by_the_kernels_letter():
    samples = reading([])()
    states = {dict(s.labels)["state"]: s.value for s in samples if s.metric == "node_processes_state"}
    assert set(states) == set("RSDTtZXI")
    assert sum(states.values()) == next(s.value for s in samples if s.metric == "node_processes_pids") > 0
