"""What `spoolproof doctor` says of a PostgreSQL store: whether it takes writes and keeps what it acknowledges."""

from __future__ import annotations

from spoolproof.ports.finding import Finding, Verdict
from spoolproof.ports.store import Store

_SETTINGS = """
select name, setting from pg_settings where name in
  ('fsync', 'synchronous_commit', 'full_page_writes', 'server_version', 'transaction_read_only')
"""


async def look(store: Store | None) -> list[Finding]:
    """Look at a started store."""
    if store is None:
        return []
    async with store.transaction() as tx:
        values = {str(row["name"]): str(row["setting"]) for row in await tx.fetch(_SETTINGS)}
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
