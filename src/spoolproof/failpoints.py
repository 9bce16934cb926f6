"""Named places where a process may die, and the plan that makes it die there.

Unarmed, `failpoint(name)` is one call and one comparison. Armed by `SPOOLPROOF_FAILPOINTS` at start, or by tests:

    SPOOLPROOF_FAILPOINTS="relay.after_confirm=kill@3; consumer.before_commit=freeze:2.5"

`@3` means the third hit (default: the first). Modes: `raise` raises InjectedFault; `kill` sends SIGKILL to this
process; `freeze:seconds` sends SIGSTOP to it, and whoever armed it sends SIGCONT. With `SPOOLPROOF_FAILPOINT_LOG` set,
the name of every armed action and the first hit of each point are appended to that file, which makes the coverage
report. Whoever adds a commit, send, confirm, ack, delete or rename adds a failpoint on each side and a line to
FAILPOINTS.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from spoolproof.errors import SettingsError

FAILPOINTS: Mapping[str, str] = {
    "outbox.after_append": "The row is in the caller's open transaction; nothing is durable.",
    "outbox.before_commit": "Rows and business change are written, not committed.",
    "outbox.after_commit": "The row is durable; nobody was told.",
    "lease.after_acquire": "The shard is ours in the store; nothing was shipped.",
    "lease.after_renew": "The lease was extended in the store; this process has not noted it.",
    "lease.after_release": "The shard is free in the store.",
    "consumer.before_batch_commit": "A batch handler is done; nothing of it is committed.",
    "consumer.before_batch_ack": "A batch is committed; none of its deliveries is acked.",
    "queue.after_move": "A message of a queue being retired is at its new place, and still in the queue.",
    "queue.before_remove": "The queue is empty and still there.",
    "relay.after_fetch": "Rows are in memory; nothing was sent.",
    "relay.after_write": "Rows were handed to the broker; no confirm yet.",
    "relay.after_confirm": "The broker has the message; the row is still in the outbox.",
    "relay.after_return": "The broker returned the message; the row is untouched.",
    "relay.after_defer": "The row waits for its next attempt.",
    "relay.before_delete": "Confirmed rows are still in the outbox.",
    "relay.after_delete": "Confirmed rows are gone from the outbox.",
    "relay.before_give_up": "The row is in the outbox, its last attempt returned.",
    "relay.after_give_up": "The row is a dead letter.",
    "webhook.after_send": "The receiver has the webhook and said so; its row is in the outbox.",
    "spool.after_commit": "The message is in the spool; its publisher was not told.",
    "spool.after_move": "The message is in the store's outbox and still in the spool.",
    "embedded.before_enqueue": "The message is only in memory; its row is in the outbox.",
    "embedded.after_enqueue": "The message is in its queues; the publisher was not told.",
    "embedded.after_claim": "The delivery is claimed by this process; no handler has seen it.",
    "embedded.after_ack": "The delivery is gone from its queue.",
    "consumer.after_receive": "The delivery is unacked; nothing was done.",
    "consumer.after_decode": "The delivery is unacked; its payload is known.",
    "consumer.after_inbox": "The inbox row is written in an open transaction.",
    "consumer.after_handler": "The handler returned; its transaction is open.",
    "consumer.before_commit": "Effects, inbox row and publishes are written, not committed.",
    "consumer.after_commit": "Effects are durable; the delivery is unacked.",
    "consumer.before_ack": "Effects are durable; the delivery is unacked and about to be acked.",
    "consumer.after_ack": "The ack was handed to the broker.",
    "consumer.after_failure": "The transaction is rolled back; the delivery is unacked.",
    "held.after_hold": "The message is held behind its key; its delivery is unacked.",
    "held.before_begin": "The head is a dead letter; its key is not held and its delivery is unacked.",
    "held.after_begin": "The key is held; the delivery of the head is unacked.",
    "held.before_run": "The held message is about to run from the table.",
    "held.after_run": "The held message was handled or given up.",
    "retry.before_copy": "The failed delivery is unacked; its copy was not sent.",
    "retry.after_copy": "The copy is confirmed in its tier; the original is unacked.",
    "dead_letter.before_record": "The delivery is unacked; there is no dead letter yet.",
    "dead_letter.after_record": "The dead letter is durable; the delivery is unacked.",
    "dead_letter.after_bridge": "A message the broker gave up on is a dead letter; it is still in the broker's queue.",
    "dead_letter.after_resolve": "The dead letter is marked resolved in the open transaction of its success.",
    "cache.after_keep": "An invalidation is in the store for a shared cache that is away; its caller was not told.",
    "cache.after_deliver": "A kept invalidation is in the shared cache, and still in the store.",
    "replay.before_move": "The dead letter is open; no copy exists.",
    "replay.after_move": "The dead letter is replaying and its copy is in the outbox.",
    "schedule.after_promote": "What was due is in the outbox and no longer scheduled; nobody was told.",
    "schedule.after_run": "A run is in the outbox and its function due next time; nobody was told.",
    "saga.after_claim": "The saga is owned by this process; nothing of it has run.",
    "saga.before_write": "What a run has done since its last write is only in memory.",
    "saga.after_write": "The write is durable; the run was not told.",
    "saga.after_intent": "The step is about to be called; of a keyed or once step the intent is durable.",
    "saga.after_call": "The call has had its effect; its result is only in memory.",
    "saga.before_commit": "The effect of a tx step is in its open transaction, without its record.",
    "saga.after_commit": "Effect and record of a tx step are durable.",
    "saga.after_turn_back": "The saga is compensating; nothing is undone.",
    "saga.after_review": "A person is asked; the saga is released.",
    "saga.after_sleep": "The saga waits and is released; what it asks meanwhile is asked.",
    "saga.after_turn": "The run of a saga has ended and is written.",
    "saga.after_rescue": "Sagas of dead processes are free.",
    "bulk.before_move": "A bulk is live; nothing of its next portion was moved.",
    "bulk.after_move": "A portion of a bulk was moved and counted, in one transaction.",
    "review.after_open": "The item is written in the caller's open transaction.",
    "review.before_park": "The parked delivery is unacked; there is no item yet.",
    "review.after_park": "The inbox row and the item are durable; the delivery is unacked.",
    "review.before_resolve": "The item is decided in an open transaction; its effect has not begun.",
    "review.before_commit": "The decision and its effect are written, not committed.",
    "review.after_resolve": "The decision and its effect are durable; nobody was told.",
    "reconciliation.after_read": "A page of both sides is in memory; nothing of it was written.",
    "reconciliation.before_repair": "A difference is written in its run; nothing was done about it.",
    "reconciliation.after_repair": "A repair and its count are durable; nobody was told.",
    "reconciliation.after_check": "A check said settled; its mark is there.",
    "batch.after_submit": "A batch, its items and their messages are written in the caller's open transaction.",
    "batch.after_item": "The state of an item that succeeded is written in the open transaction of its inbox row.",
    "batch.after_failed": "An item's dead letter and its state are durable; its delivery is unacked.",
    "batch.before_end": "A batch has no pending item; nobody has ended it.",
    "batch.after_end": "A batch is over and its BatchFinished is in the outbox; nobody was told.",
    "batch.after_reopen": "Items are pending again, and sent if they have no dead letter; those there are are open.",
    "drain.after_start": "Intake has stopped; handlers may still run.",
    "drain.after_handlers": "Handlers have ended; confirms and deletes may be outstanding.",
    "drain.after_flush": "Confirms and deletes are flushed; leases are still held.",
    "migration.after_step": "One migration is committed.",
    "maintenance.after_prune": "Old inbox rows are gone.",
    "alert.after_send": "Somebody was told of an alert; that is not written down.",
}
"""Every failpoint and what is durable at its line. A test compares this with the calls in `src/`, both ways."""


class InjectedFault(BaseException):
    """Raised by a failpoint in mode `raise`; nothing in the product expects it."""


@dataclass(frozen=True, slots=True)
class Action:
    """What happens at one failpoint: `mode` is raise, kill or freeze; `hit` counts from 1."""

    mode: str
    hit: int


class Plan:
    """Which failpoints act, and at which hit."""

    def __init__(self, actions: Mapping[str, Action], log_path: str | None = None) -> None:
        self._actions = dict(actions)
        self._hits: dict[str, int] = {}
        self._log_path = log_path

    @property
    def armed(self) -> tuple[str, ...]:
        """The failpoints that will act, for the log and the health body."""
        return tuple(f"{name}={action.mode}@{action.hit}" for name, action in self._actions.items())

    def hit(self, name: str) -> None:
        """Count a pass through `name` and act if the plan says so."""
        count = self._hits[name] = self._hits.get(name, 0) + 1
        if count == 1:
            self._log(f"hit {name}")
        action = self._actions.get(name)
        if action is None or action.hit != count:
            return
        self._log(f"{action.mode} {name}")
        if action.mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action.mode == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            raise InjectedFault(name)

    def _log(self, line: str) -> None:
        if self._log_path is not None:
            # one write of one line with O_APPEND: lines of several processes do not mix
            descriptor = os.open(self._log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, f"{os.getpid()} {line}\n".encode())
            finally:
                os.close(descriptor)


_plan: Plan | None = None


def failpoint(name: str) -> None:
    """Name a place where the process may die. Does nothing unless a plan is armed."""
    if _plan is not None:
        _plan.hit(name)


def arm(plan: Plan | None) -> None:
    """Put `plan` in force, or none. Called at start and by tests, never while a service runs."""
    global _plan
    _plan = plan


def armed_plan() -> Plan | None:
    """Return the plan in force, or None."""
    return _plan


def parse_plan(text: str, log_path: str | None = None) -> Plan:
    """Read the `SPOOLPROOF_FAILPOINTS` form. Raises SettingsError naming every entry that does not fit it."""
    actions: dict[str, Action] = {}
    faults: list[str] = []
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, _, rest = entry.partition("=")
        mode_text, _, hit_text = rest.partition("@")
        mode = mode_text.partition(":")[0]
        if name not in FAILPOINTS:
            faults.append(f"SPOOLPROOF_FAILPOINTS: no failpoint is named {name!r}")
        elif mode not in ("raise", "kill", "freeze"):
            faults.append(f"SPOOLPROOF_FAILPOINTS: {entry!r}: the mode is raise, kill or freeze:SECONDS")
        elif hit_text and (not hit_text.isdigit() or int(hit_text) < 1):
            faults.append(f"SPOOLPROOF_FAILPOINTS: {entry!r}: the hit after @ is a number from 1")
        else:
            actions[name] = Action(mode, int(hit_text or 1))
    if faults:
        raise SettingsError(faults)
    return Plan(actions, log_path)
