"""Is everything well, and if not, what and since when: the first page, and for most people the only one."""

from __future__ import annotations

from spoolproof.outbox import document as outbox
from spoolproof.ports.dead_letters import DeadLetterFilter, DeadLetterState
from spoolproof.ports.reviews import ReviewCount, Reviews
from spoolproof.ports.sagas import Sagas, SagaState
from spoolproof.ports.triage import Triage
from spoolproof.saga.transitions import OVER
from spoolproof.web import figures
from spoolproof.web.page import Ask, Document, Page


async def read(ask: Ask) -> Document:
    """Return everything the overview shows."""
    source = ask.source
    store, now = source.store, source.clock.now()
    views = await source.views()
    services = list(await store.services.all())
    groups = await store.port(Triage).groups(DeadLetterFilter(limit=200))
    reasons: dict[str, int] = {}
    for group in groups:
        reasons[group.reason] = reasons.get(group.reason, 0) + group.count
    reviews = [one for name in services for one in await store.port(Reviews).counts(name, now)]
    sagas = [one for name in services for one in await store.port(Sagas).counts(name)]
    policies = figures.policies_of(views)
    letters = await store.dead_letters.counts()
    return {
        "system": figures.system_of(views.values()),
        "issues": figures.issues_of(views),
        "processes": views,
        "services": services,
        "outbox": await outbox.status(store),
        "letters": letters[DeadLetterState.OPEN],
        "replaying": letters[DeadLetterState.REPLAYING],
        "failing": [group for group in groups if group.recent][:5],
        "reasons": sorted(reasons.items(), key=lambda one: -one[1]),
        "reviews": sum(one.count for one in reviews),
        "overdue": sum(one.overdue for one in reviews),
        "claimed": sum(one.count for one in reviews if one.is_claimed),
        "kinds": _by_kind(reviews),
        "sagas": sum(one.sagas for one in sagas if one.state not in OVER),
        "saga_questions": sum(one.sagas for one in sagas if one.state is SagaState.IN_REVIEW),
        "undoing": sum(one.sagas for one in sagas if one.state is SagaState.COMPENSATING),
        "queues": list(figures.queues_of(views).values()),
        "breakers": [row for row in policies.values() if row.state],
        "bulkheads": [row for row in policies.values() if row.limit],
        "caches": list(figures.caches_of(views).values()),
        "spooled": sum(view.sum("spool_rows") for view in views.values()),
    }


def _by_kind(counts: list[ReviewCount]) -> list[tuple[str, int]]:
    kinds: dict[str, int] = {}
    for one in counts:
        kinds[one.kind] = kinds.get(one.kind, 0) + one.count
    return sorted(kinds.items(), key=lambda one: -one[1])


PAGES = (
    Page(
        path="/",
        title="Overview",
        read=read,
        template="overview.html",
        key="o",
        section="Now",
        topics=("letters", "reviews", "outbox", "sagas", "processes", "numbers", "store"),
    ),
)
