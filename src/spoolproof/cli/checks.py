"""What `spoolproof doctor` looks at: each check ends in findings, and none ends in an exception.

A finding says what was found, what it means, and the command that mends it. Checks change nothing: no file is made
but a probe that is deleted, no schema, no queue.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from spoolproof.alerts.settings import AlertSettings, rules_of
from spoolproof.alerts.sinks import make_sinks
from spoolproof.backoff import system_random
from spoolproof.cli.store import opened
from spoolproof.clock import SystemClock
from spoolproof.consumer.queues import REMEDY, stranded_queues
from spoolproof.errors import SettingsError, SpoolproofError
from spoolproof.health.settings import HealthSettings
from spoolproof.lifecycle.supervisor import Supervisor
from spoolproof.ports.finding import Finding, Verdict
from spoolproof.ports.store import Store
from spoolproof.settings import Settings, load_settings
from spoolproof.wiring import BROKER, STORE, broker_adapter, files, missing_store, shown, store_adapter

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
    findings.append(alerts(settings))
    return findings


def alerts(settings: Settings) -> Finding:
    """Check that somebody is told when something is wrong, by URLs that can be used."""
    own = settings.of(AlertSettings)
    remedy = "set SPOOLPROOF_ALERT_URLS_PAGE and …_WARN (apprise), or SPOOLPROOF_ALERT_ALERTMANAGER_URL"
    try:
        rules_of(own)
        sinks = make_sinks(own, SystemClock())
    except SpoolproofError as error:
        return Finding("alerts", Verdict.FAIL, str(error), "the service does not start", error.hint or remedy)
    if not sinks:
        return Finding("alerts", Verdict.WARN, "no sink is set", "they are in the log and nowhere else", remedy)
    return Finding("alerts", Verdict.PASS, f"{len(sinks)} sinks; spoolproof alert test sends to them")


# --- disk ------------------------------------------------------------------------------------------------------------


def disk(settings: Settings) -> list[Finding]:
    """Check every directory the settings put SQLite files in."""
    folders = dict.fromkeys(path.resolve().parent for path in files(settings).values())
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
    look = store_adapter(settings).look
    if look is None:
        return [_forgetful("store", STORE, settings.store_url)]
    if path := missing_store(settings):
        return [Finding("store", Verdict.PASS, f"{path} is made at the first start"), *await look(None)]
    try:
        async with opened(settings) as one:
            findings = [Finding("store", Verdict.PASS, f"{one.name} answers"), await _schema(one)]
            if findings[-1].verdict is Verdict.PASS:
                findings += await _queues(one)
            return findings + await look(one)
    except (SpoolproofError, OSError) as error:
        meaning, remedy = "nothing can be accepted", f"start the database, or correct {STORE}"
        return [Finding("store", Verdict.FAIL, f"{shown(settings.store_url)}: {error}", meaning, remedy)]


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


# --- broker ----------------------------------------------------------------------------------------------------------


async def broker(settings: Settings) -> list[Finding]:
    """Check that every broker node is reached and takes our credentials."""
    name, look = broker_adapter(settings).name, broker_adapter(settings).look
    if look is None:
        return [_forgetful("broker", BROKER, settings.broker_urls[0])]
    is_needed = settings.broker_required or name in settings.of(HealthSettings).ready_needs
    meaning = "the service does not start without it" if is_needed else "events wait in the outbox until it is back"

    async def visit(url: str) -> Finding:
        try:
            found = await look(url, SystemClock(), system_random(), supervisor.spawn)
        except SpoolproofError as error:
            remedy = f"start the broker, or correct {BROKER}"
            return Finding("broker", Verdict.FAIL, f"{shown(url)}: {error}", meaning, remedy)
        return Finding("broker", Verdict.PASS, f"{shown(url)}: {found}")

    supervisor = Supervisor(SystemClock(), system_random())
    try:
        return list(await asyncio.gather(*map(visit, settings.broker_urls)))
    finally:
        await supervisor.stop()


def _forgetful(check: str, variable: str, url: str) -> Finding:
    meaning, remedy = "it forgets everything when the process ends", f"unset {variable} for the default on disk"
    return Finding(check, Verdict.WARN, f"{variable}={url}", meaning, remedy)
