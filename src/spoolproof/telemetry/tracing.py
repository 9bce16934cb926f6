"""Spans for OpenTelemetry, through its API and only where the application has set up a provider.

A message carries the context of its publish in `traceparent`, through outbox and broker, so that one trace shows what
came of it, hours later too. Without a provider each place costs one look into a dict.

Must never happen: an error of telemetry in a publish or a handler; a payload in a span.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from spoolproof.telemetry.events import SINK_FAILURES

Carried = tuple[str | None, str | None]
"""`traceparent` and `tracestate`, as a message carries them."""

_NOTHING: Carried = (None, None)
_tracers: dict[Any, Any] = {}


def tracer() -> Any | None:
    """Return the tracer of the provider that is set, or None where nobody traces. Cheap."""
    api: Any = sys.modules.get("opentelemetry.trace")  # whoever has set a provider has imported it
    if api is None:
        return None
    provider = api.get_tracer_provider()
    if isinstance(provider, api.ProxyTracerProvider | api.NoOpTracerProvider):
        return None
    if provider not in _tracers:
        _tracers.clear()
        _tracers[provider] = provider.get_tracer("spoolproof")
    return _tracers[provider]


def published(type: str, id: str, destination: str) -> Carried:
    """Make the span of a publish under the caller's, and return what its message carries on."""
    found = tracer()
    if found is None:
        return _NOTHING
    with _swallowed():
        span = found.start_span(
            f"publish {type}",
            kind=_kind("PRODUCER"),
            attributes={
                "messaging.system": "spoolproof",
                "messaging.operation.type": "create",
                "messaging.destination.name": destination,
                "messaging.message.id": id,
            },
        )
        span.end()
        return _carried(span)
    return _NOTHING


def sent(destination: str, publishes: Iterable[Carried]) -> None:
    """Make the span of a batch that was given to the broker, linked to the publishes in it."""
    found = tracer()
    if found is None:
        return
    with _swallowed():
        links = [link for carried in publishes if (link := _link(carried)) is not None]
        found.start_span(
            f"send {destination}",
            kind=_kind("CLIENT"),
            links=links,
            attributes={
                "messaging.system": "spoolproof",
                "messaging.operation.type": "send",
                "messaging.destination.name": destination,
                "messaging.batch.message_count": len(links),
            },
        ).end()


def processing(queue: str, id: str, carried: Carried, *, attempt: int, is_replay: bool) -> Any | None:
    """Return the started span of an attempt, or None where nobody traces. A replay is a trace of its own, linked to
    the first. Make it current with `current`, then `end` it."""
    found = tracer()
    if found is None:
        return None
    with _swallowed():
        from opentelemetry.context import Context

        link = _link(carried)
        return found.start_span(
            f"process {queue}",
            context=Context() if is_replay else _context(carried),
            kind=_kind("CONSUMER"),
            links=[link] if is_replay and link is not None else [],
            attributes={
                "messaging.system": "spoolproof",
                "messaging.operation.type": "process",
                "messaging.destination.name": queue,
                "messaging.message.id": id,
                "spoolproof.attempt": attempt,
            },
        )
    return None


def current(span: Any) -> Any:
    """Return a context in which spans are this one's children."""
    api: Any = sys.modules["opentelemetry.trace"]
    return api.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)


def end(span: Any, error: BaseException | None) -> None:
    """End a span; an error makes it a failed one."""
    with _swallowed():
        if error is not None:
            api: Any = sys.modules["opentelemetry.trace"]
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(api.Status(api.StatusCode.ERROR))
        span.end()


def _kind(name: str) -> Any:
    api: Any = sys.modules["opentelemetry.trace"]
    return api.SpanKind[name]


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


def _carried(span: Any) -> Carried:
    api: Any = sys.modules["opentelemetry.trace"]
    carrier: dict[str, str] = {}
    _propagator().inject(carrier, api.set_span_in_context(span))
    return carrier.get("traceparent"), carrier.get("tracestate")


def _context(carried: Carried) -> Any:
    traceparent, tracestate = carried
    carrier = {"traceparent": traceparent or "", "tracestate": tracestate or ""}
    from opentelemetry.context import Context

    return _propagator().extract(carrier, Context())


def _link(carried: Carried) -> Any | None:
    if carried[0] is None:
        return None
    api: Any = sys.modules["opentelemetry.trace"]
    context = api.get_current_span(_context(carried)).get_span_context()
    return api.Link(context) if context.is_valid else None


@contextmanager
def _swallowed() -> Iterator[None]:
    try:
        yield
    except Exception:
        SINK_FAILURES[0] += 1
