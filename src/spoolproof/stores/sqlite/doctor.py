"""What `spoolproof doctor` says of a SQLite store: whether it keeps what it acknowledges, and its release."""

from __future__ import annotations

from spoolproof.ports.finding import Finding, Verdict
from spoolproof.ports.store import Store
from spoolproof.sqlite.release import sqlite_release


async def look(store: Store | None) -> list[Finding]:
    """Look at a started store; None: there is no file yet."""
    if store is None:
        return [judge_release(sqlite_release(), 0)]
    async with store.transaction() as tx:
        rows = await tx.fetch("pragma synchronous")
    is_migrated = await store.migrations.found() == store.migrations.needed
    processes = len(await store.leases.processes()) if is_migrated else 0
    return [judge_synchronous(int(next(iter(rows[0].values())))), judge_release(sqlite_release(), processes)]


def judge_synchronous(level: int) -> Finding:
    """Return what `pragma synchronous` means."""
    if level >= 2:
        return Finding("synchronous", Verdict.PASS, "FULL: a commit is on the disk")
    return Finding(
        "synchronous",
        Verdict.FAIL,
        f"synchronous={level}",
        "acknowledged rows are lost with the power",
        "leave it to Spoolproof: pragma synchronous=FULL",
    )


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Tell whether a SQLite release may lose committed rows when several processes share a file.

    Source: sqlite.org/wal.html, "The WAL-reset bug": 3.7.0 to 3.51.2, mended in 3.51.3, 3.50.7 and 3.44.6.
    """
    if not (3, 7, 0) <= version <= (3, 51, 2):
        return False
    return not ((3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0))


def judge_release(version: tuple[int, int, int], processes: int) -> Finding:
    """Return what a SQLite release means with so many processes of ours on one file."""
    text = ".".join(map(str, version))
    if not has_wal_reset_bug(version):
        return Finding("sqlite", Verdict.PASS, text)
    if processes <= 1:
        return Finding(
            "sqlite", Verdict.PASS, f"{text}: has the WAL-reset bug, which needs several processes on a file"
        )
    return Finding(
        "sqlite",
        Verdict.WARN,
        f"{text}: has the WAL-reset bug, and {processes} processes share the file",
        "Spoolproof's own connections are kept from it; another program that writes the file may corrupt it",
        "use a Python with SQLite 3.51.3, 3.50.7 or 3.44.6, or PostgreSQL",
    )
