"""Where staff decide what software must not: why something was flagged, what is known, and what each answer will do.

Written for people who are no developers: the question first, the evidence as a list, a button for each answer with a
sentence under it. A claim keeps others away; whoever comes second is told who has it.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from spoolproof.errors import InvalidMessage
from spoolproof.ports.reviews import ReviewCount, ReviewFilter, Reviews, ReviewState
from spoolproof.review.desk import summary
from spoolproof.review.messages import MESSAGE
from spoolproof.saga.question import PREFIX
from spoolproof.telemetry.redaction import masked
from spoolproof.web.page import PAGE_ROWS, Action, Ask, Document, Done, Page

_TABS = {"open": "Waiting", "mine": "Mine", "overdue": "Overdue", "resolved": "Decided"}
_MINE_MAX = 1000
_ANSWERS = {
    "approve": "Yes: the saga goes on.",
    "reject": "No: its code says what follows.",
    "edit": "Yes, to something else: give it under “Add details”, as payload=….",
    "landed": "It had its effect: go on from there. Give what it returned as output=….",
    "not_landed": "It had no effect: do it again.",
    "retry": "Try it again, with all its attempts.",
    "skip": "Go on as if it had worked. Give what it would have returned as output=….",
    "compensate": "Undo everything that was done, the last step first.",
    "mark_compensated": "You have undone it by hand: go on with the rest.",
    "abandon": "Stop here, and leave everything as it is.",
}
"""What the answers to a saga do; their names are those of `saga.question.ACTIONS`."""
_TOLD = {
    (MESSAGE, "replay"): "Sends it to its handler again, as it is.",
    (MESSAGE, "edit"): "Sends it with the content that you give under “Change the content first”.",
    (MESSAGE, "discard"): "Leaves it at that: it is not handled. The record stays here for 30 days.",
}


async def read_list(ask: Ask) -> Document:
    """Return one page of items, and how many there are of each kind."""
    source, form = ask.source, ask.form
    tab = form.one("show", "open")
    if tab not in _TABS:
        raise InvalidMessage("show", tab, f"one of {', '.join(_TABS)}")
    desk, now = source.reviews(), source.clock.now()
    state = ReviewState.RESOLVED if tab == "resolved" else ReviewState.OPEN
    wanted: dict[str, Any] = {**form.given("kind", "subject"), "state": state}
    after = form.one("after") or None
    if tab == "mine":
        found = await desk.ls(limit=_MINE_MAX, **wanted)
        items = [one for one in found["items"] if one["claimed_by"] == ask.principal.name]
        found = {"items": items, "next": None}
    else:
        found = await desk.ls(limit=PAGE_ROWS, overdue=tab == "overdue", after=after, **wanted)
    counts: list[ReviewCount] = []
    for name in await source.store.services.all():
        counts += await source.store.port(Reviews).counts(name, now)
    return {
        **found,
        "tab": tab,
        "tabs": _TABS,
        "kind": form.one("kind"),
        "kinds": sorted({one.kind for one in counts}),
        "open": sum(one.count for one in counts),
        "overdue": sum(one.overdue for one in counts),
    }


async def read_one(ask: Ask) -> Document:
    """Return an item, what each answer does, and how the like was decided before. Raises NotFound."""
    source, now = ask.source, ask.source.clock.now()
    item = await source.reviews().show(ask.id)
    port = source.store.port(Reviews)
    fault = source.cannot_decide(item["service"], item["kind"])
    same = await port.search(
        ReviewFilter(service=item["service"], kind=item["kind"], subject=item["subject"], state=None, limit=10)
    )
    others = await port.search(
        ReviewFilter(service=item["service"], kind=item["kind"], state=ReviewState.RESOLVED, limit=PAGE_ROWS)
    )
    before = [one for one in same if one.id != ask.id]
    alike = sorted((one for one in others if one.id != ask.id), key=lambda one: one.resolved_at or now, reverse=True)
    answers = [_answer(ask, item["kind"], action, fault) for action in item["actions"]]
    evidence: Any = masked(item["evidence"])
    return {
        "item": item,
        "answers": answers,
        "before": [summary(one, now) for one in before],
        "alike": [summary(one, now) for one in alike[:5]],
        "facts": evidence if isinstance(evidence, dict) else {} if evidence is None else {"evidence": evidence},
        "is_message": item["kind"] == MESSAGE,
        "fault": fault,
        "me": ask.principal.name,
    }


def _answer(ask: Ask, kind: str, action: str, fault: str) -> dict[str, Any]:
    """Return what a button says: its name, what it does by its function's own words, and why it cannot be pressed."""
    registered = ask.source.actions.get(kind, action)
    told = "" if registered is None else _TOLD.get((kind, action)) or inspect.getdoc(registered.effect) or ""
    if kind.startswith(PREFIX):
        told = _ANSWERS.get(action, "")
    why = fault or ("" if registered else f"this process has no code for {action!r}")
    return {
        "name": action,
        "told": told.partition("\n\n")[0].replace("\n", " "),
        "four_eyes": registered is not None and registered.four_eyes,
        "why_not": why,
        "needs_body": kind == MESSAGE and action == "edit",
        "is_final": action in ("discard", "reject", "abandon", "compensate"),
    }


async def claim(ask: Ask) -> Done:
    """Keep others away."""
    item = await ask.source.reviews().claim(ask.id, actor=ask.principal.name)
    return Done(f"You have it until {item['claim_until']:%H:%M} UTC. Others are told so.")


async def release(ask: Ask) -> Done:
    """Give it back."""
    await ask.source.reviews().release(ask.id, actor=ask.principal.name)
    return Done("Given back: anybody may take it.")


async def resolve(ask: Ask) -> Done:
    """Decide."""
    form = ask.form
    values = _values(form.text("values"))
    action = form.one("action")
    if action == "edit" and form.one("body"):
        values["body"] = form.text("body")
        values |= {"force": True} if form.one("force") else {}
    async with ask.source.deciding(ask.id) as desk:
        item = await desk.resolve(ask.id, action, actor=ask.principal.name, reason=ask.reason, values=values)
    if item["state"] != ReviewState.RESOLVED:
        return Done(f"You propose “{action}”. A second person must agree before it is done.")
    return Done(f"Decided: {action}.", "/reviews")


def _values(text: str) -> dict[str, Any]:
    """Return what is set in a text of `NAME=VALUE` lines; a value is JSON or text. Raises InvalidMessage."""
    values: dict[str, Any] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, equals, value = line.partition("=")
        if not name.strip() or not equals:
            raise InvalidMessage("details", line[:60], "write NAME=VALUE, one a line")
        try:
            values[name.strip()] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            values[name.strip()] = value.strip()
    return values


PAGES = (
    Page(
        path="/reviews",
        title="Reviews",
        read=read_list,
        template="reviews.html",
        key="r",
        section="Decide",
        topics=("reviews", "store"),
    ),
    Page(
        path="/reviews/{id}",
        title="Review",
        read=read_one,
        template="review.html",
        under="/reviews",
        topics=("reviews", "store"),
    ),
)
ACTIONS = (
    Action(path="/reviews/{id}/claim", name="review:claim", permission="review:decide", run=claim, needs_reason=False),
    Action(
        path="/reviews/{id}/release", name="review:release", permission="review:decide", run=release, needs_reason=False
    ),
    Action(path="/reviews/{id}/resolve", name="review:resolve", permission="review:decide", run=resolve),
)
