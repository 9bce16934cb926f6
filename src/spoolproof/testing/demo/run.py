"""One run from the first process to the verdict: start, break, heal, wait until quiet, repair, replay, add up.

One thread that looks around some 30 times a second; every wait ends at a condition or at its deadline, and whatever is
to be seen meanwhile (ledger, payments, processes that died by themselves) is seen in `_look`.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from spoolproof.testing.demo.accounts import Accounts, Evidence, accounts_of, unfinished, without_receipt
from spoolproof.testing.demo.backend import (
    DELIVERY,
    PAYMENTS,
    SALES,
    SERVICES,
    Backend,
    DatabaseAway,
    Embedded,
    Servers,
)
from spoolproof.testing.demo.faults import (
    FROZEN_LEASES,
    FROZEN_SECONDS,
    Fault,
    Sign,
    Suffered,
    planned,
    process_faults,
    server_faults,
)
from spoolproof.testing.demo.ledger import Did, LedgerReader
from spoolproof.testing.demo.screen import Progress, Screen
from spoolproof.testing.demo.shop import Shop
from spoolproof.testing.demo.staff import STAFF, Staff

LEASE_SECONDS = 3.0  #: short, so that standing still past it is quick
LOOK_EVERY_SECONDS = 0.03
START_SECONDS_MAX = 60.0
RECOVERY_SECONDS_MAX = 60.0
QUIET_SECONDS_MAX = 90.0
NOTICE_SECONDS_MAX = 5.0  #: a fault that nobody noticed by then is healed unnoticed
QUIET_LOOKS = 2  #: in a row: between two of them nothing moved
STRIKE_SHARE = (0.2, 0.6)  #: where in its slice of orders a fault strikes
ORDERS_PER_SECOND = 100.0
ORDERS_AFTER_FAULT = 3  #: released when a slice was over before its fault was
ORDERS_PER_ROUND = 300  #: each process is killed and frozen once for so many orders
ROUNDS_MAX = {Embedded: 2, Servers: 1}
COUNTS = {Sign.PAYMENT_MADE: PAYMENTS, Sign.DELIVERY_MADE: DELIVERY, Sign.STOCK_KNOWN: SALES}  #: where a sign is seen
SIGNS = {SALES: Sign.ORDER_ACCEPTED, PAYMENTS: Sign.PAYMENT_MADE, DELIVERY: Sign.DELIVERY_MADE}

ORDERS_SQL = "select id, status from shop_order"
MOVEMENTS_SQL = "select order_id, case outcome when 'taken' then total_cents else -total_cents end from payment "
MOVEMENTS_SQL += "where outcome <> 'refused'"
DELIVERIES_SQL = "select order_id, state from delivery where order_id <> ''"
RECEIPTS_SQL = "select order_id from receipt"
SOLD_OUT_SQL = "select id from shop_order where requires_manual_review and review_reason like '% are left'"

_FAILED_CALLS = (Did.REFUSED, Did.UNANSWERED)


class RunFailed(RuntimeError):
    """The run could not be brought to its end."""


class Run:
    """One run. `suffered` and `accounts` hold what is known so far, also after it failed."""

    def __init__(self, folder: Path, backend: Backend, *, orders: int, seed: int) -> None:
        self._backend = backend
        self._draw = random.Random(seed)
        self._shop = Shop(folder, backend, LEASE_SECONDS)
        ledger_path = folder / "ledger.jsonl"
        self._ledger = LedgerReader(ledger_path)
        self._clients = self._shop.clients(ledger_path, seed, orders, ORDERS_PER_SECOND)
        self._staff = Staff(folder, self._shop.environment(SALES), self._sold_out)
        self._counts = dict.fromkeys(COUNTS, 0)
        self._accepted: set[str] = set()  #: or declined: what needs no further answer
        self._last_accepted_at = 0.0
        self._released = 0
        self._orders = orders
        self._plan = self._faults()
        self._started_at = 0.0
        self._away: set[str] = set()  #: services that do not run because we killed them
        self.progress = Progress(orders=orders, faults=len(self._plan))
        self.accounts: Accounts | None = None

    @property
    def suffered(self) -> Sequence[Suffered]:
        """The faults that were recovered from."""
        return self.progress.suffered

    def go(self, screen: Screen) -> Accounts:
        """Bring the run to its end. Raises RunFailed, DidNotFire, ShopMissing, DatabaseAway."""
        self._screen = screen
        try:
            self._start()
            self._suffer()
            self._heal()
            self.accounts = accounts_of(self._evidence(), STAFF)
            self._stop()
            return self.accounts
        finally:
            self._staff.end()
            for process in (self._clients, *self._shop.services):
                process.end()
            self._shop.close()

    def absorbed(self) -> int:
        """Return how many redeliveries the inboxes dropped."""
        return self._shop.absorbed()

    # --- start -------------------------------------------------------------------------------------------------------

    def _faults(self) -> list[Fault]:
        kinds: dict[str, list[Fault]] = {}
        for process in self._shop.services:
            frozen_seconds = LEASE_SECONDS * FROZEN_LEASES if process.name in SERVICES else FROZEN_SECONDS
            kinds[process.name] = process_faults(process, SIGNS.get(process.name, Sign.STOCK_KNOWN), frozen_seconds)
        rounds = max(1, min(ROUNDS_MAX[type(self._backend)], self._orders // ORDERS_PER_ROUND))
        plan = planned([fault for faults in kinds.values() for fault in faults], 1, self._draw)
        plan += planned([*kinds[SALES], *kinds[PAYMENTS]], rounds - 1, self._draw)  # those that keep what matters
        if isinstance(self._backend, Servers):
            plan += planned(server_faults(self._backend, self._shop.is_away), 1, self._draw)
            self._draw.shuffle(plan)
        return plan

    def _start(self) -> None:
        self._shop.prepare()
        for process in self._shop.services:
            process.start()
        for process in self._shop.services:
            self._until(process.answers, START_SECONDS_MAX, f"{process.name} to start")
        if isinstance(self._backend, Servers):
            self._backend.rabbitmq.sync()  # a node forgets what it declared less than 2 s before its kill
        self._clients.start()
        self._started_at = time.monotonic()

    # --- break -------------------------------------------------------------------------------------------------------

    def _suffer(self) -> None:
        for number, fault in enumerate(self._plan):
            first = self._released
            self._release((self._orders - first) // (len(self._plan) + 1 - number))
            share = self._draw.uniform(*STRIKE_SHARE)
            self.progress.phase = "taking orders"
            self._until_accepted(first + share * (self._released - first))
            self.progress.suffered.append(self._suffer_one(fault))
        self._release(self._orders - self._released)

    def _until_accepted(self, orders: float) -> None:
        self._until(lambda: len(self._accepted) >= orders, RECOVERY_SECONDS_MAX, f"{orders:.0f} orders to be accepted")

    def _suffer_one(self, fault: Fault) -> Suffered:
        self.progress.phase = fault.kind
        self._look()
        self._away = set(fault.kind.split())
        struck_at = time.monotonic()
        fault.strike()
        detected_at: float | None = None
        while (elapsed := time.monotonic() - struck_at) < fault.hold_seconds or (
            detected_at is None and elapsed < NOTICE_SECONDS_MAX
        ):
            self._look()
            if detected_at is None and fault.is_noticed():
                detected_at = time.monotonic()
            time.sleep(LOOK_EVERY_SECONDS)
        failed_at = self._first_failed_after(struck_at) if Sign.ORDER_ACCEPTED in fault.signs else None
        detected_at = min((at for at in (detected_at, failed_at) if at is not None), default=None)
        before = {sign: self._count(sign) for sign in fault.signs if sign in COUNTS}
        healing_at = time.monotonic()
        fault.heal()
        self._away = set()
        healed_at = time.monotonic()
        self.progress.phase = f"recovering from {fault.kind}"
        # what was released before may all be accepted by now: without new orders there would be nothing to see
        self._release(ORDERS_AFTER_FAULT)

        def has_recovered() -> bool:
            return (Sign.ORDER_ACCEPTED not in fault.signs or self._last_accepted_at > healing_at) and (
                all(self._count(sign) > count for sign, count in before.items())
            )

        self._until(has_recovered, RECOVERY_SECONDS_MAX, f"recovery from {fault.kind}")
        return Suffered(
            kind=fault.kind,
            struck_seconds=round(struck_at - self._started_at, 3),
            detected_seconds=None if detected_at is None else round(detected_at - struck_at, 3),
            recovered_seconds=round(time.monotonic() - healed_at, 3),
        )

    def _release(self, orders: int) -> None:
        upto = min(self._orders, self._released + orders)
        if upto > self._released:
            self._released = upto
            self._clients.tell(str(upto))

    # --- heal --------------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.progress.phase = "waiting for the last orders"
        self._until(lambda: not self._clients.is_running, QUIET_SECONDS_MAX, "the last order to be accepted")
        if self._clients.exit_code != 0:
            raise RunFailed(f"the clients ended with {self._clients.exit_code}:\n{self._clients.tail()}")
        self._wait_until_quiet("waiting until all is quiet")
        self.progress.phase = "replaying the dead letters"
        self._backend.repair_printer()
        if self._backend.replay_all():
            self._wait_until_quiet("waiting until the replayed receipts are written")

    def _wait_until_quiet(self, phase: str) -> None:
        self.progress.phase = phase
        quiet_looks = 0
        deadline = time.monotonic() + QUIET_SECONDS_MAX
        while quiet_looks < QUIET_LOOKS:
            self._look()
            waits = self._what_waits()
            quiet_looks = 0 if waits else quiet_looks + 1
            if waits and time.monotonic() > deadline:
                raise RunFailed(f"not quiet after {QUIET_SECONDS_MAX:g} s: {waits}")
            time.sleep(5 * LOOK_EVERY_SECONDS)

    def _what_waits(self) -> str:
        try:
            waiting, queued, evidence = self._backend.waiting(), self._backend.queued(), self._evidence()
        except DatabaseAway as error:
            return str(error)
        undecided, unprinted = sorted(unfinished(evidence)), sorted(without_receipt(evidence))
        if waiting or queued or undecided:
            return (
                f"{waiting} in the outboxes, {queued} in the broker, {len(undecided)} sagas not over {undecided[:5]}, "
                f"{len(unprinted)} without a receipt {unprinted[:5]}"
            )
        # nothing is on its way any more: what is missing now stays so, and the accounts say it
        return ""

    def _evidence(self) -> Evidence:
        self._ledger.read()
        rows = self._backend.rows
        return Evidence(
            lines=self._ledger.lines,
            orders=[(str(id), str(status)) for id, status in rows(SALES, ORDERS_SQL)],
            sagas=self._backend.sagas(),
            movements=[(str(id), int(cents)) for id, cents in rows(PAYMENTS, MOVEMENTS_SQL)],
            deliveries=[(str(id), str(state)) for id, state in rows(DELIVERY, DELIVERIES_SQL)],
            receipts=[(str(id),) for (id,) in rows(PAYMENTS, RECEIPTS_SQL)],
            letters=self._backend.letters(),
            reviews=self._backend.reviews(),
        )

    def _sold_out(self) -> set[str]:
        try:
            return {str(id) for (id,) in self._backend.rows(SALES, SOLD_OUT_SQL)}
        except DatabaseAway:
            return set()

    def _stop(self) -> None:
        self.progress.phase = "stopping the shop"
        for process in self._shop.services:
            code = process.stop()
            if code not in (0, -signal.SIGTERM):  # uvicorn ends in order and then by the signal it got
                raise RunFailed(f"{process.name} ended with {code} when asked to stop:\n{process.tail()}")

    # --- look --------------------------------------------------------------------------------------------------------

    def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self._look()
            if condition():
                return
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {process.name}\n{process.tail()}" for process in self._shop.services)
                raise RunFailed(f"waited {seconds:g} s in vain for {what}\n{logs}")
            time.sleep(LOOK_EVERY_SECONDS)

    def _look(self) -> None:
        """See what happened since the last look. Raises RunFailed when a process died and nobody killed it."""
        for line in self._ledger.read():
            if line.did in (Did.ACCEPTED, Did.DECLINED):
                self._accepted.add(line.order_id)
                self._last_accepted_at = line.at
        for process in self._shop.services:
            if process.exit_code is not None and process.name not in self._away:
                raise RunFailed(f"{process.name} ended by itself with {process.exit_code}:\n{process.tail()}")
        self.progress.accepted = len(self._accepted)
        if self._started_at:
            self.progress.payments = self._count(Sign.PAYMENT_MADE)
            self._staff.tick()
        self._screen.tick()

    def _count(self, sign: Sign) -> int:
        """Return how often a sign was seen, as far as that can be told now."""
        count = self._backend.count(COUNTS[sign])
        self._counts[sign] = self._counts[sign] if count is None else count
        return self._counts[sign]

    def _first_failed_after(self, at: float) -> float | None:
        """Return when the first call after `at` was refused or given up by a customer, if one was."""
        failed = [line.at for line in self._ledger.lines if line.at > at and line.did in _FAILED_CALLS]
        return min(failed, default=None)
