"""A process frozen past its lease: a peer takes over, and what the frozen one still does when it wakes changes nothing.

SIGSTOP leaves its connections open and its clocks running: the hardest kind of dead, because it comes back.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import CLEAN, ORDERS, Node, NodeDied, Scenario, verdict  # type: ignore[import-not-found]

LEASE_SECONDS = 1.0  #: what the harness gives every node
POINTS = ("relay.after_fetch", "relay.after_confirm", "relay.before_give_up", "consumer.after_receive")


class Pair:
    """A node that freezes and the peer that takes over."""

    def __init__(self, folder: Path, environment: dict[str, str], failpoint: str) -> None:
        self.scenario = Scenario(folder, environment, "")
        self.frozen = Node(folder, environment, f"{failpoint}=freeze:0")
        self.peer: Node | None = None
        self._folder = folder
        self._environment = environment

    def run(self, *, peer_works_alone: bool) -> dict[str, list[object]]:
        """Freeze one past its lease, let the other take over, wake the first, and add up.

        peer_works_alone: the peer must finish everything while the first stands still.
        """
        self.frozen.read(30.0)
        self.scenario.node = self.frozen
        self._place_until_frozen()
        self.peer = self.scenario.node = Node(self._folder, self._environment)
        if peer_works_alone:
            self.peer.read(30.0)
            self.scenario.place_all()
            self.scenario.until_settled(60.0)
        else:
            time.sleep(2 * LEASE_SECONDS)  # standing still is the fault itself: it lasts as long as it lasts
        self.frozen.process.send_signal(signal.SIGCONT)
        if not peer_works_alone:
            self.peer.read(30.0)
            self.scenario.place_all()
            self.scenario.until_settled(60.0)
        (self._folder / "repaired").touch()
        self.peer.ask(do="replay")
        self.scenario.until_repaired(60.0)
        assert 0 == self.frozen.terminate()
        report = self.peer.ask(do="report")
        assert 0 == self.peer.terminate()
        found: dict[str, list[object]] = verdict(self.scenario, report)
        return found

    def _place_until_frozen(self) -> None:
        for n in ORDERS:
            try:
                self.scenario.place("place", n, self.scenario.accepted, seconds=2.0)
            except (TimeoutError, NodeDied):
                break
        deadline = time.monotonic() + 20.0
        while not self.frozen.fired():
            assert time.monotonic() < deadline, "the failpoint was not reached"
            self.scenario.place("nowhere", 1, self.scenario.accepted_nowhere, seconds=2.0)
            time.sleep(0.05)

    def close(self) -> None:
        for node in (self.frozen, self.peer):
            if node is not None:
                node.close()


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made: list[Pair] = []
    yield made
    for pair in made:
        pair.close()


@pytest.mark.crash
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", POINTS)
def test_frozen_past_its_lease_on_sqlite_and_the_embedded_broker(name: str, tmp_path: Path, pairs: list[Pair]) -> None:
    """S5, S6. A process frozen inside a SQLite write keeps every peer from writing until it wakes or dies, as SQLite
    has one writer: so what is proven here is that waking up late does no harm."""
    pairs.append(Pair(tmp_path, {}, name))

    assert CLEAN == pairs[0].run(peer_works_alone=False)
    assert [name] == pairs[0].frozen.fired()


@pytest.mark.crash
@pytest.mark.servers
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["relay.after_fetch"])
def test_frozen_past_its_lease_on_postgresql_and_rabbitmq(
    name: str, tmp_path: Path, pairs: list[Pair], postgres_url: str, rabbitmq_url: str
) -> None:
    """S5, S6, V2: RabbitMQ gives a frozen consumer's deliveries back when its heartbeat stays out."""
    environment = {
        "SPOOLPROOF_STORE": postgres_url,
        "SPOOLPROOF_BROKER": rabbitmq_url,
        "SPOOLPROOF_MIGRATE": "auto",
    }
    pairs.append(Pair(tmp_path, environment, name))

    assert CLEAN == pairs[0].run(peer_works_alone=True)
    assert [name] == pairs[0].frozen.fired()
