"""Signatures: what can be served is, what cannot is refused at registration with the reason."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from spoolproof import Delivery, RegistrationError, Service, SyncTransaction, Transaction, event
from spoolproof.consumer.handler import Argument
from spoolproof.settings import Settings


@event("order.placed")
class OrderPlaced(msgspec.Struct):
    order_id: str


@event("order.cancelled")
class OrderCancelled(msgspec.Struct):
    order_id: str


class Nameless(msgspec.Struct):
    order_id: str


def service() -> Service:
    return Service("shop", settings=Settings())


async def only_payload(order: OrderPlaced) -> None: ...
async def everything(tx: Transaction, delivery: Delivery, order: OrderPlaced) -> None: ...
async def with_default(order: OrderPlaced, retries=3) -> None: ...  # type: ignore[no-untyped-def]
async def takes_dict(order: dict[str, Any]) -> None: ...
async def takes_both(order: OrderPlaced | OrderCancelled) -> None: ...


@pytest.mark.parametrize(
    ("function", "events", "arguments"),
    [
        (only_payload, [OrderPlaced], [("order", Argument.PAYLOAD)]),
        (
            everything,
            [OrderPlaced],
            [("tx", Argument.TRANSACTION), ("delivery", Argument.DELIVERY), ("order", Argument.PAYLOAD)],
        ),
        (with_default, [OrderPlaced], [("order", Argument.PAYLOAD)]),
        (takes_dict, ["order.placed"], [("order", Argument.PAYLOAD)]),
        (takes_both, [OrderPlaced, OrderCancelled], [("order", Argument.PAYLOAD)]),
    ],
)
def test_arguments_are_filled_by_annotation(
    function: Callable[..., Any], events: list[Any], arguments: list[tuple[str, Argument]]
) -> None:
    """Order and names are the author's."""
    shop = service()

    shop.on(*events)(function)

    (queue,) = shop._router.queues
    assert f"shop.{function.__name__}" == queue
    assert arguments == list(shop._router.handlers(queue)[0].arguments)


async def no_annotation(order) -> None: ...  # type: ignore[no-untyped-def]
async def stranger(order: OrderPlaced, count: int) -> None: ...
async def star(*orders: OrderPlaced) -> None: ...
async def keywords(order: OrderPlaced, **rest: Any) -> None: ...
async def positional(order: OrderPlaced, /) -> None: ...
async def nothing() -> None: ...
async def two_payloads(a: OrderPlaced, b: OrderPlaced) -> None: ...
async def two_transactions(a: OrderPlaced, b: Transaction, c: Transaction) -> None: ...
async def unresolvable(order: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def not_async(order: OrderPlaced, tx: Transaction) -> None: ...
async def sync_in_async(order: OrderPlaced, tx: SyncTransaction) -> None: ...
def generator(order: OrderPlaced) -> Iterator[None]:
    yield


@functools.wraps(only_payload)
def hidden_async(order: OrderPlaced) -> Any:
    return only_payload(order)


class CallsAsync:
    async def __call__(self, order: OrderPlaced) -> None: ...


@pytest.mark.parametrize(
    ("function", "events", "reason"),
    [
        (no_annotation, [OrderPlaced], "'order' has no annotation"),
        (stranger, [OrderPlaced], "'count': int is neither the event, Delivery nor Transaction"),
        (star, [OrderPlaced], r"\*args"),
        (keywords, [OrderPlaced], r"\*\*kwargs"),
        (positional, [OrderPlaced], "positional-only"),
        (nothing, [OrderPlaced], "no parameter takes the payload"),
        (two_payloads, [OrderPlaced], "2 parameters for the payload"),
        (two_transactions, [OrderPlaced], "2 parameters for the transaction"),
        (unresolvable, [OrderPlaced], "NoSuchName"),
        (hidden_async, [OrderPlaced], "hides that"),
        (CallsAsync(), [OrderPlaced], "has no name to call its queue by"),
        (generator, [OrderPlaced], "generator function"),
        (not_async, [OrderPlaced], "a plain function takes SyncTransaction"),
        (sync_in_async, [OrderPlaced], "an `async def` takes Transaction"),
        (only_payload, [OrderPlaced, OrderCancelled], "does not take OrderCancelled"),
        (takes_both, [OrderPlaced], "names OrderCancelled"),
        (only_payload, [Nameless], "Nameless has no wire name"),
        (only_payload, [7], "7 is neither an event class nor a wire name"),
        (only_payload, [], "name at least one event"),
        (takes_dict, [""], "'' is no wire name"),
        (takes_dict, ["has space"], "'has space' is no wire name"),
        (takes_dict, ["order.*"], r"'order\.\*' is no wire name: .* no \* or # as patterns have"),
        (takes_dict, ["#"], "'#' is no wire name"),
        (takes_dict, ["x" * 256], "is no wire name: 1 to 255 bytes"),
        (OrderPlaced, [OrderPlaced], "not a function"),
        (7, [OrderPlaced], "has no name to call its queue by"),
        (functools.partial(only_payload), [OrderPlaced], "has no name to call its queue by"),
    ],
)
def test_a_signature_that_cannot_be_served_is_refused_with_the_reason(
    function: Callable[..., Any], events: list[Any], reason: str
) -> None:
    """At the decorator the author is looking; at a delivery nobody is."""
    with pytest.raises(RegistrationError, match=reason):
        service().on(*events)(function)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": 1300}, "two thirds"),
        ({"timeout": "30"}, "timeout='30'"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"concurrency": True}, "concurrency=True"),
        ({"prefetch": 0}, "prefetch=0"),
        ({"attempts": 0}, "attempts=0"),
        ({"ordered": "yes"}, "ordered='yes': True or False"),
        ({"ordered": True, "on_key_failure": "hold"}, "on_key_failure='hold': 'skip' or 'hold_key'"),
        ({"on_key_failure": "hold_key"}, "needs ordered=True"),
        ({"ordered": True, "dedupe": "none"}, "drop dedupe='none'"),
        ({"delays": ()}, r"delays=\(\)"),
        ({"delays": (-1,)}, "delays="),
        ({"delays": (21601,)}, "delays="),
        ({"delays": 5}, "delays=5"),
        ({"delays": "15"}, "delays='15'"),
        ({"delays": (float("nan"),)}, "delays="),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"queue": 7}, "queue=7"),
        ({"queue": "a\0b"}, "queue="),
        ({"queue": "a\nb"}, "queue="),
        ({"queue": "\ud800"}, "queue="),
        ({"dedupe": "maybe"}, "dedupe='maybe'"),
        ({"queue": "has space"}, "queue='has space'"),
        ({"queue": "q" * 201}, "queue="),
    ],
)
def test_an_impossible_option_is_refused_by_name_and_value(options: dict[str, Any], reason: str) -> None:
    """A wrong option found at 3 a.m. is a wrong option too late."""
    with pytest.raises(RegistrationError, match=reason):
        service().on(OrderPlaced, **options)(only_payload)


def test_every_fault_of_a_registration_is_reported_at_once() -> None:
    """One fault per run is an afternoon of runs."""
    with pytest.raises(RegistrationError) as caught:
        service().on(OrderPlaced, timeout=0, attempts=0)(not_async)

    assert 3 == str(caught.value).count("\n  - ")


def test_dedupe_none_has_no_transaction_to_give() -> None:
    """The parameter would promise an atomicity that is not there."""
    with pytest.raises(RegistrationError, match="drop the Transaction parameter"):
        service().on(OrderPlaced, dedupe="none")(everything)


def test_two_handlers_for_one_type_on_one_queue_are_refused() -> None:
    """Which of the two runs must not depend on import order."""
    shop = service()
    shop.on(OrderPlaced, queue="orders")(only_payload)

    with pytest.raises(RegistrationError, match=r"'orders' already has a handler for order\.placed"):
        shop.on(OrderPlaced, queue="orders")(everything)


@pytest.mark.parametrize("name", ["", "a b", "x" * 101, "a/b", "..", 7])
def test_a_service_name_that_cannot_name_a_queue_is_refused(name: Any) -> None:
    """It becomes the prefix of queues and exchanges."""
    with pytest.raises(RegistrationError, match="Service"):
        Service(name)


def test_a_bare_decorator_is_refused_with_what_to_write() -> None:
    """It registered nothing: the handler never ran and no line said so."""
    shop = service()

    with pytest.raises(RegistrationError, match=r"write @service\.on\(OrderPlaced\) above only_payload"):
        shop.on(only_payload)  # type: ignore[arg-type]


async def test_a_decorator_that_is_on_no_function_is_refused_at_start() -> None:
    """`service.on(OrderPlaced)` without the @ registers nothing either."""
    shop = Service("shop", settings=Settings(store="memory://", broker="memory://"))
    shop.on(OrderPlaced)
    shop.on(OrderCancelled, OrderPlaced, queue="both")(takes_both)

    with pytest.raises(RegistrationError, match=r"service\.on\(OrderPlaced\) is on no function: .* write @service\.on"):
        await shop.start()


def test_the_same_function_twice_on_one_queue_is_refused() -> None:
    """The second decorator would split one subscription into two that look alike."""
    shop = service()
    shop.on(OrderPlaced)(only_payload)

    with pytest.raises(RegistrationError, match=r"'shop\.only_payload' already has a handler for order\.placed"):
        shop.on(OrderPlaced)(only_payload)


@pytest.mark.parametrize("settings", [{}, "sqlite:///store.db", Settings])
def test_settings_of_another_kind_are_refused(settings: Any) -> None:
    """It would fail at start, far from the line that is wrong."""
    with pytest.raises(RegistrationError, match=r"pass Settings\(…\) or nothing"):
        Service("shop", settings=settings)
