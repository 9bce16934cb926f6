"""What `spoolproof doctor` looks at: each check ends in findings, and none ends in an exception.

A finding says what was found, what it means, and the command that mends it. Checks change nothing: no file is made
but a probe that is deleted, no schema, no queue.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from spoolproof.backoff import system_random
from spoolproof.cli.store import is_missing, opened
from spoolproof.clock import SystemClock
from spoolproof.consumer.queues import REMEDY, stranded_queues
from spoolproof.errors import SettingsError, SpoolproofError
from spoolproof.health.settings import HealthSettings
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.ports.broker import Spawn
from spoolproof.ports.store import Store
from spoolproof.settings import Settings, load_settings
from spoolproof.urls import path_of, redact_url
from spoolproof.wiring import sqlite_release, visit_broker

NETWORK_FILE_SYSTEMS = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.s3fs",
    ]
)
VOLATILE_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "overlay"})


class Verdict(StrEnum):
    """pass; warn: works, with a risk; fail: a promise does not hold."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. found: the fact. meaning, remedy: empty for a pass."""

    check: str
    verdict: Verdict
    found: str
    meaning: str = ""
    remedy: str = ""


async def examine() -> list[Finding]:
    """Run every check that can be run; what follows from wrong settings is left out."""
    try:
        settings = load_settings()
    except SettingsError as error:
        meaning = "the service does not start"
        return [
            Finding("settings", Verdict.FAIL, fault, meaning, "correct it in the environment or in .env")
            for fault in error.faults
        ]
    findings = [Finding("settings", Verdict.PASS, "all are legal")]
    findings += disk(settings)
    findings += await store(settings)
    findings += await broker(settings)
    return findings


# --- disk ------------------------------------------------------------------------------------------------------------


def disk(settings: Settings) -> list[Finding]:
    """Check every directory the settings put SQLite files in."""
    urls = [
        url for url in (settings.store_url, settings.broker_urls[0]) if url.startswith(("sqlite://", "embedded://"))
    ]
    folders = dict.fromkeys(path_of(url).resolve().parent for url in urls)
    mounts = read_mounts()
    return [finding for folder in folders for finding in (_writable(folder), _local(folder, mounts))]


def read_mounts() -> list[tuple[str, str]]:
    """Return (mount point, type) of every file system; empty where the system does not say."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return []
    return [(fields[1].replace("\\040", " "), fields[2]) for line in lines if len(fields := line.split()) > 2]


def file_system_of(folder: Path, mounts: Sequence[tuple[str, str]]) -> str | None:
    """Return the type of the file system a folder lies on: that of the longest mount point above it."""
    above = [(point, kind) for point, kind in mounts if folder.is_relative_to(point)]
    return max(above, key=lambda one: len(one[0]))[1] if above else None


def judge_file_system(folder: Path, kind: str | None) -> Finding:
    """Return what a type of file system means for the files in a folder."""
    if kind in NETWORK_FILE_SYSTEMS:
        return Finding(
            "file system",
            Verdict.FAIL,
            f"{folder} is on {kind}",
            "locks do not hold across a network file system; SQLite files are corrupted",
            "set SPOOLPROOF_DATA_DIR to a local disk",
        )
    if kind in VOLATILE_FILE_SYSTEMS:
        return Finding(
            "file system",
            Verdict.WARN,
            f"{folder} is on {kind}",
            "what is written there goes with the container or the next boot",
            "set SPOOLPROOF_DATA_DIR to a volume or a local disk",
        )
    return Finding("file system", Verdict.PASS, f"{folder} is on {kind or 'a file system that cannot be named'}")


def _local(folder: Path, mounts: Sequence[tuple[str, str]]) -> Finding:
    return judge_file_system(folder, file_system_of(folder, mounts))


def _writable(folder: Path) -> Finding:
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return Finding("data directory", Verdict.PASS, f"{folder} is writable")
    except OSError as error:
        return Finding(
            "data directory",
            Verdict.FAIL,
            f"{existing} is not writable: {error.strerror}",
            "nothing can be stored",
            f"chown {_user()} {existing}, or set SPOOLPROOF_DATA_DIR",
        )


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "USER"


# --- store -----------------------------------------------------------------------------------------------------------


async def store(settings: Settings) -> list[Finding]:
    """Check that the store is reached, migrated, and set to keep what it acknowledges."""
    url = settings.store_url
    if url.startswith("memory://"):
        return [_forgetful("store", "SPOOLPROOF_STORE")]
    if is_missing(settings):
        return [Finding("store", Verdict.PASS, f"{path_of(url)} is made at the first start"), _sqlite_version(0)]
    try:
        async with opened(settings) as one:
            findings = [Finding("store", Verdict.PASS, f"{one.name} answers"), await _schema(one)]
            is_migrated = findings[-1].verdict is Verdict.PASS
            if is_migrated:
                findings += await _queues(one)
            if url.startswith("sqlite://"):
                return findings + await _sqlite(one, is_migrated)
            return findings + await _postgres(one)
    except (SpoolproofError, OSError) as error:
        return [
            Finding(
                "store",
                Verdict.FAIL,
                f"{redact_url(url)}: {error}",
                "nothing can be accepted",
                "start the database, or correct SPOOLPROOF_STORE",
            )
        ]


async def _schema(one: Store) -> Finding:
    found, needed = await one.migrations.found(), one.migrations.needed
    if found == needed:
        return Finding("schema", Verdict.PASS, f"version {found}")
    remedy = "spoolproof migrate" if found < needed else "install the release of spoolproof that made this schema"
    return Finding(
        "schema",
        Verdict.FAIL,
        f"version {found}, this release needs {needed}",
        "the service may refuse to start",
        remedy,
    )


async def _queues(one: Store) -> list[Finding]:
    findings = []
    for service in await one.services.all():
        for name, row in (await stranded_queues(one.state, service)).items():
            meaning = "events go on filling it, and a replay into it is handled by nobody"
            remedy = REMEDY.format(queue=name)
            findings.append(Finding("queue", Verdict.FAIL, row.sentence(name, service), meaning, remedy))
    return findings or [Finding("queues", Verdict.PASS, "every known one is read by a handler")]


async def _sqlite(one: Store, is_migrated: bool) -> list[Finding]:
    async with one.transaction() as tx:
        rows = await tx.fetch("pragma synchronous")
    level = int(next(iter(rows[0].values())))
    if level >= 2:
        synchronous = Finding("synchronous", Verdict.PASS, "FULL: a commit is on the disk")
    else:
        synchronous = Finding(
            "synchronous",
            Verdict.FAIL,
            f"synchronous={level}",
            "acknowledged rows are lost with the power",
            "leave it to Spoolproof: pragma synchronous=FULL",
        )
    processes = len(await one.leases.processes()) if is_migrated else 0
    return [synchronous, _sqlite_version(processes)]


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Tell whether a SQLite release may lose committed rows when several processes share a file.

    Source: sqlite.org/wal.html, "The WAL-reset bug": 3.7.0 to 3.51.2, mended in 3.51.3, 3.50.7 and 3.44.6.
    """
    if not (3, 7, 0) <= version <= (3, 51, 2):
        return False
    return not ((3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0))


def _sqlite_version(processes: int) -> Finding:
    return judge_sqlite(sqlite_release(), processes)


def judge_sqlite(version: tuple[int, int, int], processes: int) -> Finding:
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


async def _postgres(one: Store) -> list[Finding]:
    async with one.transaction() as tx:
        rows = await tx.fetch(
            "select name, setting from pg_settings "
            "where name in ("
            "'fsync', 'synchronous_commit', 'full_page_writes', 'server_version', 'transaction_read_only')"
        )
    values = {str(row["name"]): str(row["setting"]) for row in rows}
    findings = [Finding("postgresql", Verdict.PASS, values.pop("server_version", "of unknown version"))]
    findings.append(judge_writable(values.pop("transaction_read_only", "off")))
    return findings + [judge_durability(name, value) for name, value in sorted(values.items())]


def judge_writable(read_only: str) -> Finding:
    """Return what it means that a transaction of ours is read-only, or not: `transaction_read_only` of PostgreSQL."""
    if read_only != "on":
        return Finding("writable", Verdict.PASS, "it takes writes")
    return Finding(
        "writable",
        Verdict.FAIL,
        "it takes no writes: a standby, or default_transaction_read_only=on",
        "nothing can be accepted, and handlers wait",
        "name the primary in SPOOLPROOF_STORE, or set default_transaction_read_only = off",
    )


def judge_durability(name: str, value: str) -> Finding:
    """Return what a durability setting of PostgreSQL means."""
    if value != "off":
        return Finding(name, Verdict.PASS, value)
    return Finding(
        name,
        Verdict.FAIL,
        f"{name}=off",
        "a commit is acknowledged before it is safe; a crash of the server loses it",
        f"alter system set {name} = on; select pg_reload_conf();",
    )


# --- broker ----------------------------------------------------------------------------------------------------------


async def broker(settings: Settings) -> list[Finding]:
    """Check that every broker node is reached and takes our credentials."""
    scheme = settings.broker_urls[0].partition("://")[0]
    if scheme == "memory":
        return [_forgetful("broker", "SPOOLPROOF_BROKER")]
    if scheme == "embedded":
        return [_embedded(path_of(settings.broker_urls[0]))]
    async with _spawning() as spawn:
        return list(await asyncio.gather(*(_remote(url, settings, spawn) for url in settings.broker_urls)))


async def _remote(url: str, settings: Settings, spawn: Spawn) -> Finding:
    try:
        found = await visit_broker(url, clock=SystemClock(), random=system_random(), spawn=spawn)
    except SpoolproofError as error:
        kind = "sqs" if url.startswith("sqs:") else "rabbitmq"
        is_needed = settings.broker_required or kind in settings.of(HealthSettings).ready_needs
        meaning = "the service does not start without it" if is_needed else "events wait in the outbox until it is back"
        remedy = "start it, or correct SPOOLPROOF_BROKER"
        return Finding("broker", Verdict.FAIL, f"{redact_url(url)}: {error}", meaning, remedy)
    return Finding("broker", Verdict.PASS, f"{redact_url(url)}: {found}")


def _embedded(path: Path) -> Finding:
    if not path.exists():
        return Finding("broker", Verdict.PASS, f"{path} is made at the first start")
    try:
        # no SQLite connection of this process has the file open: closing it here would drop that one's locks
        with path.open("r+b") as file:
            head = file.read(16)
    except OSError as error:
        return Finding(
            "broker", Verdict.FAIL, f"{path}: {error.strerror}", "nothing is delivered", f"chown {_user()} {path}"
        )
    if head and head != b"SQLite format 3\0":
        return Finding(
            "broker",
            Verdict.FAIL,
            f"{path} is not a SQLite file",
            "nothing is delivered",
            "name another file in SPOOLPROOF_BROKER=embedded:///PATH",
        )
    return Finding("broker", Verdict.PASS, f"{path} is readable and writable")


@asynccontextmanager
async def _spawning() -> AsyncIterator[Spawn]:
    supervisor = Supervisor(SystemClock(), system_random())
    try:
        yield supervisor.spawn
    finally:
        await supervisor.stop()


def _forgetful(check: str, variable: str) -> Finding:
    return Finding(
        check,
        Verdict.WARN,
        f"{variable}=memory://",
        "it forgets everything when the process ends",
        f"unset {variable} for the default on disk",
    )
