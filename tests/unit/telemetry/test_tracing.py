"""One trace from a publish to what its handlers do, through OpenTelemetry's own SDK."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from spoolproof import Service
from spoolproof.ports.dead_letters import DeadLetterFilter
from spoolproof.telemetry import tracing
from spoolproof.telemetry.events import SINK_FAILURES


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(api, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


async def test_one_trace_leads_from_the_request_to_the_handler_of_what_the_handler_published(
    spans: InMemorySpanExporter,
) -> None:
    service = Service("shop")

    @service.on("order", queue="orders")
    async def on_order(payload: dict[str, int]) -> None:
        await service.publish({}, type="invoice")

    @service.on("invoice", queue="invoices")
    def on_invoice(payload: dict[str, int]) -> None:
        with tracing.tracer().start_as_current_span("print"):  # type: ignore[union-attr]
            pass

    async with service.test() as app:
        with tracing.tracer().start_as_current_span("POST /orders") as request:  # type: ignore[union-attr]
            await app.publish({"n": 1}, type="order")
        await app.settled()

    parents = {}
    for child, parent in (
        ("publish order", "POST /orders"),
        ("process orders", "publish order"),
        ("publish invoice", "process orders"),
        ("process invoices", "publish invoice"),
        ("print", "process invoices"),
    ):
        (span,), (above,) = named(spans, child), named(spans, parent)
        assert span.parent is not None
        assert above.context is not None
        parents[child] = span.parent.span_id == above.context.span_id
        assert span.context is not None
        assert request.get_span_context().trace_id == span.context.trace_id
    assert set(parents.values()) == {True}
    (published,) = named(spans, "publish order")
    assert published.context is not None
    assert published.context.span_id in {
        link.context.span_id for span in named(spans, "send events") for link in span.links
    }


async def test_a_failed_attempt_is_a_failed_span_and_a_replay_a_trace_of_its_own(
    spans: InMemorySpanExporter,
) -> None:
    service = Service("shop")
    fails = [True]

    @service.on("order", queue="orders", attempts=1)
    async def on_order(payload: dict[str, int]) -> None:
        if fails[0]:
            raise LookupError("no such customer")

    async with service.test() as app:
        await app.publish({"n": 1}, type="order")
        await app.settled()
        fails[0] = False
        store = service.runtime.store
        (letter,) = await store.dead_letters.search(DeadLetterFilter())
        assert await store.dead_letters.replay(letter.id, "operator", "mended")
        store.wakeup.notify()
        await app.settled()

    first, again = named(spans, "process orders")
    assert (StatusCode.ERROR, "LookupError") == (first.status.status_code, (first.attributes or {})["error.type"])
    assert StatusCode.UNSET is again.status.status_code
    assert again.parent is None
    assert again.context is not None
    assert first.context is not None
    assert again.context.trace_id != first.context.trace_id
    assert again.links[0].context.trace_id == first.context.trace_id


async def test_a_tracer_that_raises_costs_no_publish(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(TracerProvider):
        def get_tracer(self, *args: object, **options: object) -> object:  # type: ignore[override]
            class Tracer:
                def start_span(self, *args: object, **options: object) -> None:
                    raise RuntimeError("exporter")

            return Tracer()

    broken = Broken()
    monkeypatch.setattr(api, "get_tracer_provider", lambda: broken)
    before = SINK_FAILURES[0]
    service = Service("shop")
    done = []

    @service.on("order", queue="orders")
    async def on_order(payload: dict[str, int]) -> None:
        done.append(payload["n"])

    async with service.test() as app:
        await app.publish({"n": 1}, type="order")
        await app.settled()

    assert [1] == done
    assert SINK_FAILURES[0] >= before + 3
