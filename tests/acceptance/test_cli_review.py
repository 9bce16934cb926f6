"""`spoolproof review` and `spoolproof reconcile` as people type them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

SHOP = """
import asyncio
import sys

from spoolproof import Service, Transaction
from spoolproof.review.actions import Decision

service = Service("shop")
ours = {"o-1": "pending", "o-2": "pending"}


@service.reviews.action("order.flagged", "approve")
async def approve(decision: Decision, tx: Transaction) -> None:
    await tx.publish({"id": decision.item.subject, **decision.values}, type="shop.order.approved")


@service.reviews.action("order.flagged", "refund", four_eyes=True)
async def refund(decision: Decision, tx: Transaction) -> None:
    await tx.publish({"id": decision.item.subject}, type="shop.order.refunded")


orders = service.reconciliation.reconciler("orders", transitions={"pending": {"shipped"}})


@orders.candidates
async def candidates(after):
    for key in sorted(ours):
        if after is None or key > after:
            yield key


@orders.ours
async def read_ours(keys):
    for key in keys:
        yield key, ours[key]


@orders.theirs
async def read_theirs(keys):
    for key in keys:
        yield key, "shipped" if key == "o-1" else "lost"


@orders.repair
async def repair(found, tx: Transaction) -> bool:
    await tx.publish({"id": found.key}, type="shop.order.repaired")
    return True


async def main():
    await service.start(only=[])
    for n in range(int(sys.argv[1])):
        await service.reviews.open("order.flagged", f"o-{n}", "May it go?", evidence={"n": n})
    await service.stop()


if __name__ == "__main__":
    asyncio.run(main())
"""


class Shop:
    """A service in a folder, and the command line there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "shop.py").write_text(SHOP)

    def run(self, *words: str, exit_code: int = 0) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOLPROOF", "RABBITMQ"))}
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.path,
            env={**clean, "SPOOLPROOF_STORE": "sqlite:///store.db"},
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert exit_code == done.returncode, done.stdout + done.stderr
        return done.stdout

    def cli(self, *words: str, exit_code: int = 0) -> dict[str, Any]:
        return dict(json.loads(self.run("-m", "spoolproof", *words, "--json", exit_code=exit_code).splitlines()[0]))

    def database(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path / "store.db")

    def published(self) -> list[str]:
        with closing(self.database()) as connection:
            return [type for (type,) in connection.execute("select type from spoolproof_outbox order by id")]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path)
    made.run("shop.py", "3")
    return made


def test_a_question_is_claimed_and_decided(shop: Shop) -> None:
    """By two people at two terminals, with no service running."""
    items = shop.cli("review", "ls")["items"]
    first, second, third = (item["id"] for item in items)
    claim = shop.cli("review", "claim", first, "--actor", "ann")["item"]
    refused = shop.cli("review", "claim", first, "--actor", "bob", exit_code=4)["error"]
    assert "is claimed by ann until" in refused["message"]

    why = ("--reason", "called", "--service", "shop:service")
    blind = shop.cli("review", "resolve", first, "approve", "--reason", "x", "--actor", "ann", exit_code=4)["error"]
    assert "--service MODULE:SERVICE" in blind["hint"]
    told = ("--set", "note=fine", "--token", claim["token"], "--actor", "ann")
    assert "resolved" == shop.cli("review", "resolve", first, "approve", *why, *told)["item"]["state"]
    late = shop.cli("review", "resolve", first, "approve", *why, "--actor", "bob", exit_code=4)["error"]
    assert "was resolved with 'approve' by ann" in late["message"]
    shown = shop.cli("review", "show", first)["item"]
    assert ["opened", "claimed", "resolved"] == [one["verb"] for one in shown["trail"]]
    assert {"n": 0} == shown["evidence"]
    assert "order.flagged" in shop.run("-m", "spoolproof", "review", "show", second)

    assert "ann" == shop.cli("review", "resolve", second, "refund", *why, "--actor", "ann")["item"]["proposed_by"]
    shop.cli("review", "resolve", second, "refund", *why, "--actor", "ann", exit_code=4)
    assert "bob" == shop.cli("review", "resolve", second, "refund", *why, "--actor", "bob")["item"]["resolved_by"]
    dry = shop.cli("review", "bulk", "order.flagged", "approve", *why, "--dry-run")
    done = shop.cli("review", "bulk", "order.flagged", "approve", *why, "--yes")
    assert ((1, 0), (1, 1)) == tuple((one["matched"], one["resolved"]) for one in (dry, done))
    assert [third] == [item["id"] for item in shop.cli("review", "ls", "--state", "resolved")["items"]][2:]
    assert "no review items match" in shop.run("-m", "spoolproof", "review", "ls")
    assert ["shop.order.approved", "shop.order.refunded", "shop.order.approved"] == shop.published()


@pytest.mark.parametrize(
    "statement",
    [
        "update spoolproof_review_item set record = replace(record, 'May it go', 'Must it go') where subject = 'o-1'",
        "update spoolproof_review_event set record = substr(record, 2)",
    ],
)
def test_what_other_hands_changed_is_found(shop: Shop, statement: str) -> None:
    """Exit code 4, for whoever runs it by the clock."""
    assert {"checked": 3, "faults": []} == {
        name: value for name, value in shop.cli("review", "verify").items() if name != "schema"
    }
    with closing(shop.database()) as connection, connection:
        assert connection.execute(statement).rowcount

    assert "trails do not fit" in shop.cli("review", "verify", exit_code=4)["error"]["message"]


def test_two_sides_are_compared_and_repaired(shop: Shop) -> None:
    """First dry; every number is accounted for."""
    dry = shop.cli("reconcile", "run", "orders", "--service", "shop:service", "--dry-run")["run"]
    run = shop.cli("reconcile", "run", "orders", "--service", "shop:service")["run"]
    shown = shop.cli("reconcile", "show", run["id"])["run"]

    assert (2, {"dry_run": 2}) == (dry["seen"], dry["skipped"])
    assert (2, 0, 1, 1, {}) == tuple(run[name] for name in ("seen", "equal", "repaired", "reviewed", "skipped"))
    assert [("o-1", "repaired"), ("o-2", "reviewed")] == [(one["key"], one["became"]) for one in shown["differences"]]
    assert [run["id"], dry["id"]] == [one["id"] for one in shop.cli("reconcile", "ls")["runs"]]
    assert "repaired" in shop.run("-m", "spoolproof", "reconcile", "ls")
    assert ["shop.order.repaired"] == shop.published()
    (item,) = shop.cli("review", "ls", "--kind", "reconciliation.difference")["items"]
    assert "orders/o-2" == item["subject"]
    accept = ("accept", "--reason", "known", "--service", "shop:service")
    assert "resolved" == shop.cli("review", "resolve", item["id"], *accept)["item"]["state"]
    assert (
        "orders" in shop.cli("reconcile", "run", "other", "--service", "shop:service", exit_code=1)["error"]["message"]
    )
