"""Webhooks of a real service to a real receiver, which is killed, frozen, and verifies with another library."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from spoolproof import Service, limits, load_settings
from spoolproof.policies import Breaker, Policy, Registry
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.ports.webhooks import EndpointState, Webhooks
from spoolproof.testing.conformance import eventually
from spoolproof.webhooks.part import WebhooksPart

sys.path.insert(0, str(Path(__file__).parent))
from receivers import OLD_SECRET, SECRET, Receiver  # type: ignore[import-not-found]

pytestmark = pytest.mark.integration

EVENTS = 40


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with Receiver(tmp_path, SECRET, OLD_SECRET) as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_LOOK_SECONDS", 0.05)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, not behaviour: seconds of the schedule in place of hours."""
    monkeypatch.setattr(limits, "WEBHOOK_DELAYS_SECONDS", (0.1,) * 9)
    monkeypatch.setattr(limits, "WEBHOOK_SECONDS", 2.0)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'store.db'}"


@asynccontextmanager
async def running(tmp_path: Path, receiver: Receiver, store: str = "") -> AsyncIterator[Service]:
    registry = Registry()
    Policy("webhook", Breaker(consecutive=5, open_seconds=0.3, open_factor=1, probe_successes=1), registry=registry)
    settings = load_settings(
        store=store or f"sqlite:///{tmp_path / 'store.db'}",
        broker=f"embedded:///{tmp_path / 'broker.db'}",
        migrate="auto",
        webhook_allow_private=("127.0.0.0/8", "::1/128"),
        webhook_ports=(receiver.port,),
    )
    service = Service("shop", settings=settings, policies=registry)
    await service.start()
    try:
        yield service
    finally:
        await service.drain(1.0)
        await service.stop()


async def publish(service: Service, numbers: range, type: str = "order.placed") -> None:
    for n in numbers:
        await service.publish({"n": n}, type=type, key=f"k{n % 3}")


async def waiting(service: Service) -> dict[str, int]:
    return dict(await service.runtime.store.port(Webhooks).waiting())


async def waits(service: Service, rows: Mapping[str, int] = MappingProxyType({})) -> bool:
    return await waiting(service) == rows


@pytest.mark.servers
async def test_every_event_reaches_a_receiver_that_is_killed_and_frozen(
    tmp_path: Path, store: str, receiver: Receiver, quick: None
) -> None:
    """Accepted is delivered, at least once, each time under the same id, and verified by a library that is not ours."""
    async with running(tmp_path, receiver, store) as service:
        await service.webhooks.add("shop", receiver.url("ok"), ["order.placed"], secret=SECRET)
        await publish(service, range(10))
        await eventually(lambda: len(receiver.numbers()) == 10)
        receiver.kill()
        await publish(service, range(10, 20))
        receiver.start()
        await publish(service, range(20, 30))
        receiver.signal(signal.SIGSTOP)
        await publish(service, range(30, EVENTS))
        receiver.signal(signal.SIGCONT)

        await eventually(lambda: len(receiver.numbers()) == EVENTS, seconds=20.0)
        await eventually(lambda: waits(service), seconds=10.0)

    came = receiver.received()
    assert {(True, False)} == {tuple(line["verified"]) for line in came}
    assert EVENTS == len({line["id"] for line in came}), "an event has one id, however often it came"
    body = came[0]["body"]
    assert ["type", "timestamp", "data"] == list(body)
    assert "order.placed" == body["type"]


async def test_one_that_hangs_delays_no_other(tmp_path: Path, receiver: Receiver) -> None:
    """Its own rows wait in the store; nothing that is shared is used up by it."""
    async with running(tmp_path, receiver) as service:
        for name in ("hang", "ok"):
            await service.webhooks.add(name, receiver.url(name), ["*"], secret=SECRET)

        await publish(service, range(3 * limits.WEBHOOK_LANE_ROWS_MAX))
        await eventually(lambda: len(receiver.numbers("ok")) == 3 * limits.WEBHOOK_LANE_ROWS_MAX, seconds=10.0)

        assert limits.WEBHOOK_CONCURRENCY == len(receiver.received("hang"))
        assert 3 * limits.WEBHOOK_LANE_ROWS_MAX == (await waiting(service))["hang"]


async def test_what_the_receiver_says_decides(tmp_path: Path, receiver: Receiver, quick: None) -> None:
    """500 and 302 are tried again and end as dead letters, 410 disables, a huge or slow body is not read."""
    async with running(tmp_path, receiver) as service:
        for path in ("500", "redirect", "410", "huge", "once/503"):
            await service.webhooks.add(path.replace("/", "-"), receiver.url(path), ["*"], secret=SECRET)
        dead_letters = service.runtime.store.dead_letters

        await publish(service, range(1))
        await eventually(lambda: waits(service, {"once-503": 1}), seconds=20.0)
        found = await dead_letters.search(DeadLetterFilter(reason="webhook"))
        endpoints = {endpoint.name: endpoint for endpoint in await service.webhooks.all()}

        counts = {path: len(receiver.received(path)) for path in ("500", "redirect", "410", "huge", "once")}
        assert {"500": 10, "redirect": 10, "410": 1, "huge": 1, "once": 1} == counts
        assert [] == receiver.received("ok"), "a redirect was followed"
        consumers = ["relay:webhook:410", "relay:webhook:500", "relay:webhook:redirect"]
        assert consumers == sorted(letter.consumer for letter in found)
        assert EndpointState.DISABLED is endpoints["410"].state
        assert any("410 is disabled" in issue for issue in service.runtime.part(WebhooksPart).report().issues)

        await service.webhooks.resume("410")
        letter = next(letter for letter in found if letter.consumer.endswith("410"))
        await dead_letters.replay(letter.id, "ann", "it is back")
        await eventually(lambda: len(receiver.received("410")) == 2)
        assert 1 == len({line["id"] for line in receiver.received("410")})
        assert 10 == len(receiver.received("500")), "a replay goes to the endpoint that failed and to no other"


async def test_both_secrets_sign_while_they_are_rotated(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that knows either takes it, so that nobody has to change two things at one moment."""
    monkeypatch.setenv("OLD_HOOK", OLD_SECRET)
    async with running(tmp_path, receiver) as service:
        await service.webhooks.add("shop", receiver.url("ok"), ["*"], secret="env:OLD_HOOK")
        await service.webhooks.rotate("shop", SECRET)
        await publish(service, range(1))
        await eventually(lambda: len(receiver.received()) == 1)
        await service.webhooks.rotate("shop", ends=True)
        directory = service.runtime.part(WebhooksPart).directory
        await eventually(lambda: len(directory.keys_of("shop")) == 1)
        await publish(service, range(1, 2))
        await eventually(lambda: len(receiver.received()) == 2)

    assert [[True, True], [True, False]] == [line["verified"] for line in receiver.received()]


async def test_what_waits_for_a_paused_endpoint_goes_when_it_is_resumed(tmp_path: Path, receiver: Receiver) -> None:
    """A pause is no loss."""
    async with running(tmp_path, receiver) as service:
        await service.webhooks.add("shop", receiver.url("ok"), ["*"], secret=SECRET)
        await service.webhooks.pause("shop", "they migrate")
        await publish(service, range(5))
        assert {"shop": 5} == await waiting(service)

        await service.webhooks.resume("shop")
        await eventually(lambda: len(receiver.numbers()) == 5, seconds=10.0)
