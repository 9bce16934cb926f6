"""Work in several steps: where it stands, what it asks, and every step of one."""

from __future__ import annotations

from typing import Any

import msgspec

from spoolproof.errors import InvalidMessage
from spoolproof.ports.reconciliations import Reconciliations
from spoolproof.ports.sagas import Count, SagaFilter, Sagas, SagaState
from spoolproof.reconciliation import desk as reconciliation
from spoolproof.saga import desk
from spoolproof.saga.question import approvals
from spoolproof.saga.question import read as read_question
from spoolproof.saga.transitions import OVER
from spoolproof.web.page import PAGE_ROWS, Action, Ask, Document, Done, Page

_LIST_MAX = 1000


async def read_list(ask: Ask) -> Document:
    """Return sagas, newest first, and how many are in each state that is not the end."""
    source, form = ask.source, ask.form
    state = form.one("state")
    if state and state not in list(SagaState):
        raise InvalidMessage("state", state, f"one of {', '.join(SagaState)}")
    limit = form.whole("limit", PAGE_ROWS, _LIST_MAX)
    port = source.store.port(Sagas)
    wanted = SagaFilter(name=form.one("name") or None, state=SagaState(state) if state else None, limit=limit + 1)
    rows = list(await port.search(wanted))
    counts: list[Count] = []
    for service in await source.store.services.all():
        counts += await port.counts(service)
    by_state = {one: sum(count.sagas for count in counts if count.state is one) for one in SagaState if one not in OVER}
    return {
        "rows": rows[:limit],
        "more": min(limit + PAGE_ROWS, _LIST_MAX) if len(rows) > limit else None,
        "state": state,
        "states": list(SagaState),
        "by_state": by_state,
        "name": form.one("name"),
        "names": sorted({one.name for one in counts} | {row.name for row in rows}),
    }


async def read_one(ask: Ask) -> Document:
    """Return a saga with its journal and its question. Raises NotFound."""
    found = await desk.find(ask.source.store.port(Sagas), ask.id)
    saga = found.saga
    question = None if saga.question is None else read_question(saga.question)
    asked = [question.review] if question is not None else approvals(found.steps)
    return {
        "saga": saga,
        "steps": [(step, _readable(step.output)) for step in found.steps],
        "signals": found.signals,
        "question": question,
        "asked": [id for id in asked if id] if saga.state not in OVER else [],
        "is_over": saga.state in OVER,
    }


def _readable(output: bytes | None) -> Any:
    if output is None:
        return None
    try:
        return msgspec.json.decode(output)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return output.decode(errors="replace")


async def retry(ask: Ask) -> Done:
    """Let it try again at once."""
    state = await desk.retry(ask.source.store, ask.id, actor=ask.principal.name, reason=ask.reason)
    return Done(f"It tries again now; it is {state.replace('_', ' ')}.")


async def cancel(ask: Ask) -> Done:
    """Have it undone."""
    await desk.cancel(ask.source.store, ask.id, actor=ask.principal.name, reason=ask.reason)
    return Done("It will be undone, from the last step to the first.")


async def read_runs(ask: Ask) -> Document:
    """Return the newest runs of reconciliation, and how many keys wait."""
    return await reconciliation.ls(ask.source.store.port(Reconciliations), limit=PAGE_ROWS)


async def read_run(ask: Ask) -> Document:
    """Return a run with all that differed. Raises NotFound."""
    return {"run": await reconciliation.show(ask.source.store.port(Reconciliations), ask.id)}


PAGES = (
    Page(
        path="/sagas",
        title="Sagas",
        read=read_list,
        template="sagas.html",
        key="s",
        section="Decide",
        topics=("sagas", "store"),
    ),
    Page(
        path="/sagas/{id}", title="Saga", read=read_one, template="saga.html", under="/sagas", topics=("sagas", "store")
    ),
    Page(
        path="/reconciliation",
        title="Reconciliation",
        read=read_runs,
        template="runs.html",
        section="Decide",
        topics=("numbers", "store"),
    ),
    Page(path="/reconciliation/{id}", title="Run", read=read_run, template="run.html", under="/reconciliation"),
)
ACTIONS = (
    Action(path="/sagas/{id}/retry", name="saga:retry", permission="saga:act", run=retry),
    Action(path="/sagas/{id}/cancel", name="saga:cancel", permission="saga:act", run=cancel),
)
