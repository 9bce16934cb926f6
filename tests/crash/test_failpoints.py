"""Every failpoint, killed -9 in a real process, then restarted: nothing accepted lost, effects once, nothing invented.

A failpoint that was not reached makes its case fail: a run that injected nothing proves nothing. Those one backend
cannot reach are listed with the reason.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from spoolproof.failpoints import FAILPOINTS

sys.path.insert(0, str(Path(__file__).parent))
from harness import CLEAN, Scenario, verdict  # type: ignore[import-not-found]

DOSE = os.environ.get("SPOOLPROOF_DOSE", "test")

_ELSEWHERE = {
    "webhook.after_send": "it has endpoints and a receiver in test_webhooks.py",
    **{name: "test_spool.py kills there" for name in FAILPOINTS if name.startswith("spool.")},
    **{n: "only queues that hold keys; test_order.py kills there" for n in FAILPOINTS if n.startswith("held.")},
    **{n: "test_reviews.py kills there" for n in FAILPOINTS if n.startswith(("review.", "reconciliation."))},
    **{n: "only a batch has it; test_batches.py kills there" for n in FAILPOINTS if n.startswith("batch.")},
    "alert.after_send": "it has somebody to tell in test_alerts.py",
    "queue.after_move": "a command has it: integration/test_renamed_handlers.py",
    "queue.before_remove": "likewise",
    **{n: "only a saga has it; test_sagas.py kills there" for n in FAILPOINTS if n.startswith("saga.")},
    **{n: "the cache has a test of its own; test_cache_redis.py" for n in FAILPOINTS if n.startswith("cache.")},
}

UNREACHABLE = {
    "embedded": _ELSEWHERE,
    "servers": {
        **_ELSEWHERE,
        **{n: "only the embedded broker has this boundary" for n in FAILPOINTS if n.startswith("embedded.")},
    },
}
"""Failpoints a backend cannot reach, with the reason."""

SERVERS_IN_TEST = (
    "outbox.before_commit",
    "outbox.after_commit",
    "relay.after_write",
    "relay.after_confirm",
    "relay.before_delete",
    "relay.after_give_up",
    "consumer.before_commit",
    "consumer.after_commit",
    "retry.after_copy",
    "dead_letter.after_record",
    "replay.after_move",
    "schedule.after_promote",
    "schedule.after_run",
    "drain.after_flush",
)
"""What `make test` kills on PostgreSQL + RabbitMQ; `make ci` kills every one of them there too."""

HITS = {"consumer.after_receive": 3, "relay.after_confirm": 2, "outbox.after_commit": 4, "embedded.after_enqueue": 2}
"""Which pass dies, where the first would be too early to have neighbours in flight."""


def run(folder: Path, environment: dict[str, str], name: str) -> None:
    scenario = Scenario(folder, environment, f"{name}=kill@{HITS.get(name, 1)}")

    report = scenario.run()

    assert [-signal.SIGKILL] == scenario.deaths, f"{name} was not reached"
    assert [name] == scenario.node.fired()
    assert CLEAN == verdict(scenario, report)


@pytest.mark.crash
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(set(FAILPOINTS) - set(UNREACHABLE["embedded"])))
def test_killed_on_sqlite_and_the_embedded_broker(name: str, tmp_path: Path) -> None:
    """S1–S4, S10, S11, S14."""
    run(tmp_path, {}, name)


@pytest.mark.crash
@pytest.mark.servers
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "name",
    sorted(set(FAILPOINTS) - set(UNREACHABLE["servers"])) if DOSE != "test" else SERVERS_IN_TEST,
)
def test_killed_on_postgresql_and_rabbitmq(name: str, tmp_path: Path, postgres_url: str, rabbitmq_url: str) -> None:
    """S1–S4, S10, S11 where the commit and the confirm come from servers."""
    run(tmp_path, server_environment(postgres_url, rabbitmq_url), name)


def server_environment(postgres_url: str, rabbitmq_url: str) -> dict[str, str]:
    return {
        "SPOOLPROOF_STORE": postgres_url,
        "SPOOLPROOF_BROKER": rabbitmq_url,
        "SPOOLPROOF_MIGRATE": "auto",
    }


@pytest.mark.crash
@pytest.mark.timeout(120)
def test_the_harness_sees_a_planted_loss_and_a_planted_double(tmp_path: Path) -> None:
    """A harness counts only once it has found planted faults."""
    scenario = Scenario(tmp_path, {}, "")
    scenario.accepted = {1, 2}
    report = {
        "effects": [["book", 1], ["book", 1], ["confirm", 1]],
        "placed": [1, 2],
        "outbox": 0,
        "dead_letters": [],
    }

    found = verdict(scenario, report)

    assert [2] == found["lost"]
    assert [1] == found["doubled"]
