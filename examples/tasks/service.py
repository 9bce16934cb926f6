"""The service: its cache, its jobs, and what runs by the clock. `app.py` puts HTTP in front of it.

It runs on the embedded default without any server. `SPOOLPROOF_STORE=postgresql://…` moves its tables, `REDIS_HOST=…`
puts Redis under the cache; not a line here changes.
"""

from __future__ import annotations

import os
import time

import msgspec

from spoolproof import Delivery, Service, Transaction, event
from spoolproof.consumer.jobs import JobContext, Problem
from tasks.faults import FAULTS

service = Service("tasks")


class User(msgspec.Struct, frozen=True):
    id: str
    name: str
    email: str


class Overdue(msgspec.Struct, frozen=True):
    task_id: str
    user_id: str
    title: str


class Export(msgspec.Struct, frozen=True):
    user_id: str


@event("tasks.notified", may_be_unrouted=True)
class Notified(msgspec.Struct, frozen=True):
    task_id: str
    user_id: str


@service.on_start
async def tables() -> None:
    async with service.transaction() as tx:
        await tx.execute("create table if not exists app_user (id text primary key, name text, email text)")
        await tx.execute(
            "create table if not exists app_task (id text primary key, user_id text, title text, due_at float, "
            "notified_at float)"
        )


# --- profiles: the newest there is, also while the database is away

profiles = service.cache(
    "profiles",
    of=User,
    ttl_seconds=float(os.environ.get("TASKS_PROFILE_TTL", "30")),
    soft_timeout_seconds=0.5,
    retry_throttle_seconds=1,
)


async def load_profile(user_id: str) -> User | None:
    await FAULTS.database()
    async with service.transaction() as tx:
        row = await tx.fetch_one("select id, name, email from app_user where id = $1", user_id)
    return None if row is None else User(row["id"], row["name"], row["email"])


# --- overdue tasks: a batch every five minutes


@service.every(os.environ.get("TASKS_OVERDUE_EVERY", "5m"))
async def notify_overdue(run: Delivery, tx: Transaction) -> None:
    rows = await tx.fetch(
        "select id, user_id, title from app_task where due_at <= $1 and notified_at is null limit 10000",
        time.time(),
    )
    overdue = [Overdue(row["id"], row["user_id"], row["title"]) for row in rows]
    if overdue:  # with this transaction, and under the id of this run: never twice for one run
        await service.batches.submit("notify", overdue, id=run.message.id)


def can_be_told(item: Overdue) -> list[Problem]:
    return [] if item.title.strip() else [Problem("is empty", field="title")]


@service.batches.job("notify", validate=can_be_told, item_id=lambda item: item.task_id)
async def notify(item: Overdue, job: JobContext, tx: Transaction) -> str:
    """The mark, the event and the item's state are one commit, so nobody is told twice."""
    sql = "update app_task set notified_at = $1 where id = $2 and notified_at is null"
    if not await tx.execute(sql, time.time(), item.task_id):
        return "told already"
    await tx.publish(Notified(item.task_id, item.user_id))
    return "told"


# --- exports: a job of its own, which may hang


@service.batches.job("export", timeout=20, concurrency=2, item_id=lambda item: item.user_id)
def export(item: Export, job: JobContext) -> dict[str, str]:
    """A plain function: it runs in one of two threads that belong to this job alone."""
    FAULTS.export()
    return {"file": f"{item.user_id}.csv", "key": job.key}
