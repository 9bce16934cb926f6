"""What protects: breakers and bulkheads of all processes, what they lean on, and caches.

An isolation, its release and a reset are facts in the store, which every process of the service takes over within five
seconds: no process is asked, and one that starts later hears of it too.
"""

from __future__ import annotations

from spoolproof.errors import InvalidMessage, NotFound
from spoolproof.ids import random_id
from spoolproof.limits import FACTS_SECONDS
from spoolproof.maintenance.fact import ISOLATION, RESET, Fact
from spoolproof.maintenance.facts import known_facts, tell_fact
from spoolproof.web import figures
from spoolproof.web.page import Action, Ask, Document, Done, Page

ISOLATE_MINUTES_MAX = 1440
_SOON = f"Every process takes it over within {FACTS_SECONDS:.0f} s."


async def read_breakers(ask: Ask) -> Document:
    """Return every policy of every service, the worst first, with the isolations that hold."""
    source = ask.source
    state, now = source.store.state, source.clock.now()
    facts = [(name, one) for name in await source.store.services.all() for one in await known_facts(state, name, now)]
    isolations = [(name, one) for name, one in facts if one.kind == ISOLATION and not one.is_released]
    rows = list(figures.policies_of(await source.views()).values())
    rows.sort(key=lambda row: (-figures.STATES.index(row.state) if row.state else 1, row.service, row.name))
    return {"policies": rows, "isolations": isolations, "now_seconds": now.timestamp()}


async def isolate(ask: Ask) -> Done:
    """Let no call through, for a while."""
    minutes = ask.form.whole("minutes", 60, ISOLATE_MINUTES_MAX)
    if not minutes:
        raise InvalidMessage("minutes", 0, f"1 to {ISOLATE_MINUTES_MAX}")
    at = ask.source.clock.now().timestamp() + minutes * 60
    await _tell(ask, Fact(kind=ISOLATION, policy=_policy(ask), key=None, id=random_id(), reason=_why(ask), at=at))
    return Done(f"Isolated for {minutes} min. {_SOON}")


async def release(ask: Ask) -> Done:
    """End every isolation of a policy."""
    service, policy, state = ask.form.one("service"), _policy(ask), ask.source.store.state
    held = [
        one
        for one in await known_facts(state, service, ask.source.clock.now())
        if one.kind == ISOLATION and one.policy == policy and not one.is_released
    ]
    if not held:
        raise NotFound(f"{policy} of {service} is isolated by nobody, as far as the store knows")
    for one in held:
        await tell_fact(state, service, one.released())
    return Done(f"Released. {_SOON}")


async def reset(ask: Ask) -> Done:
    """Close a breaker and forget its counts."""
    at = ask.source.clock.now().timestamp()
    await _tell(ask, Fact(kind=RESET, policy=_policy(ask), key=None, id=random_id(), reason=_why(ask), at=at))
    return Done(f"Reset. {_SOON}")


async def _tell(ask: Ask, fact: Fact) -> None:
    service = ask.form.one("service")
    if service not in await ask.source.store.services.all():
        raise NotFound(f"no service {service!r} has run on this store")
    await tell_fact(ask.source.store.state, service, fact)


def _policy(ask: Ask) -> str:
    if not (name := ask.form.one("policy")):
        raise InvalidMessage("policy", "", "which one?")
    return name


def _why(ask: Ask) -> str:
    return f"{ask.principal.name}: {ask.reason}"[:200]


async def read_caches(ask: Ask) -> Document:
    """Return the caches of all processes."""
    return {"caches": list(figures.caches_of(await ask.source.views()).values())}


async def read_dependencies(ask: Ask) -> Document:
    """Return what each process leans on, and how that is."""
    rows = [
        (view.service, key, one)
        for view in (await ask.source.views()).values()
        for key, one in view.dependencies.items()
    ]
    return {"rows": sorted(rows, key=lambda row: (row[0], row[1]))}


_TOPICS = ("numbers", "processes", "store")
PAGES = (
    Page(
        path="/breakers",
        title="Breakers",
        read=read_breakers,
        template="breakers.html",
        key="b",
        section="Protect",
        topics=_TOPICS,
    ),
    Page(
        path="/dependencies",
        title="Dependencies",
        read=read_dependencies,
        template="dependencies.html",
        key="h",
        section="Protect",
        topics=_TOPICS,
    ),
    Page(
        path="/cache",
        title="Caches",
        read=read_caches,
        template="caches.html",
        key="c",
        section="Protect",
        topics=_TOPICS,
    ),
)
ACTIONS = tuple(
    Action(
        path=f"/breakers/{verb}",
        name=f"breaker:{verb}",
        permission="breaker:act",
        run=run,
        target=lambda ask: f"{ask.form.one('service')}/{ask.form.one('policy')}",
    )
    for verb, run in (("isolate", isolate), ("release", release), ("reset", reset))
)
