"""The judgements of `doctor`, as tables; what it meets for real is in the acceptance tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from spoolproof.cli.checks import file_system_of, judge_file_system
from spoolproof.ports.finding import Verdict
from spoolproof.stores.postgres.doctor import judge_durability, judge_writable
from spoolproof.stores.sqlite.doctor import has_wal_reset_bug, judge_release

MOUNTS = [("/", "overlay"), ("/data", "ext4"), ("/data/share", "nfs4"), ("/tmp", "tmpfs")]


@pytest.mark.parametrize(
    ("version", "has_bug"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_the_wal_reset_bug_is_known_by_version(version: tuple[int, int, int], has_bug: bool) -> None:
    """It loses committed rows; Debian 12 ships an affected release."""
    assert has_bug is has_wal_reset_bug(version)


@pytest.mark.parametrize(
    ("version", "processes", "verdict"),
    [
        ((3, 40, 1), 0, Verdict.PASS),
        ((3, 40, 1), 1, Verdict.PASS),
        ((3, 40, 1), 2, Verdict.WARN),
        ((3, 51, 3), 2, Verdict.PASS),
    ],
)
def test_it_matters_when_several_processes_share_a_file(
    version: tuple[int, int, int], processes: int, verdict: Verdict
) -> None:
    """A warning that is always there is read by nobody."""
    assert verdict is judge_release(version, processes).verdict


@pytest.mark.parametrize(
    ("folder", "kind", "verdict"),
    [
        ("/data/shop", "ext4", Verdict.PASS),
        ("/data/share/shop", "nfs4", Verdict.FAIL),
        ("/data/shared", "ext4", Verdict.PASS),
        ("/tmp/shop", "tmpfs", Verdict.WARN),
        ("/srv", "overlay", Verdict.WARN),
    ],
)
def test_a_folder_is_judged_by_the_file_system_it_lies_on(folder: str, kind: str, verdict: Verdict) -> None:
    """Locks do not hold across a network file system: SQLite files are corrupted there."""
    found = file_system_of(Path(folder), MOUNTS)

    assert kind == found
    assert verdict is judge_file_system(Path(folder), found).verdict


def test_a_system_that_names_no_mounts_is_not_a_fault() -> None:
    """Not every platform has /proc."""
    assert Verdict.PASS is judge_file_system(Path("/data"), file_system_of(Path("/data"), [])).verdict


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("fsync", "on", Verdict.PASS),
        ("fsync", "off", Verdict.FAIL),
        ("synchronous_commit", "on", Verdict.PASS),
        ("synchronous_commit", "remote_apply", Verdict.PASS),
        ("synchronous_commit", "off", Verdict.FAIL),
    ],
)
def test_a_database_that_forgets_commits_fails(name: str, value: str, verdict: Verdict) -> None:
    """Its acknowledgement is what ours rests on."""
    finding = judge_durability(name, value)

    assert verdict is finding.verdict
    assert (f"alter system set {name} = on" in finding.remedy) is (verdict is Verdict.FAIL)


@pytest.mark.parametrize(("read_only", "verdict"), [("off", Verdict.PASS), ("on", Verdict.FAIL)])
def test_a_database_that_takes_no_writes_is_a_failure(read_only: str, verdict: Verdict) -> None:
    """It answers every ping, and nothing can be accepted."""
    assert verdict is judge_writable(read_only).verdict
