"""What was given up on: what fails alike, one of it with all that is known, and sending it again: one, some, or all.

All that match are a bulk, which is counted before it is asked for, sends one first, and goes on whoever watches. An
edit changes what would be sent, and sends nothing: its difference is there to read before the replay.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from spoolproof.consumer.queues import stranded_queues
from spoolproof.dead_letters.edit import difference
from spoolproof.errors import InvalidMessage, SpoolproofError
from spoolproof.ports.bulk import ENDED_EARLY, LIVE, BulkVerb
from spoolproof.ports.dead_letters import DeadLetterState
from spoolproof.web.page import PAGE_ROWS, Action, Ask, Document, Done, Form, Page

WINDOWS = {"1h": 3600, "3h": 10_800, "24h": 86_400, "3d": 259_200, "7d": 604_800}
FIELDS = ("consumer", "because", "type", "fingerprint", "key", "message_id", "text")
TYPED_FROM = 1000  #: a bulk about more than this has its number typed
_SHOWN_BODY = 256 * 1024


def _wanted(form: Form, now: datetime) -> dict[str, Any]:
    """Return the filter of a query or form, where `reason` says why somebody acts. Raises InvalidMessage."""
    wanted: dict[str, Any] = form.given(*FIELDS)
    if "because" in wanted:
        wanted["reason"] = wanted.pop("because")
    if window := form.one("within"):
        if window not in WINDOWS:
            raise InvalidMessage("within", window, f"one of {', '.join(WINDOWS)}")
        wanted["since"] = now - timedelta(seconds=WINDOWS[window])
    if since := form.one("since"):
        wanted["since"] = datetime.fromisoformat(since)
    return wanted


async def read_groups(ask: Ask) -> Document:
    """Return what fails alike, the largest group first, and the bulks that run."""
    source, form = ask.source, ask.form
    desk = source.letters
    found = await desk.groups(limit=100, **_wanted(form, source.clock.now()))
    counts = await source.store.dead_letters.counts()
    bulks = (await desk.bulks(6))["bulks"]
    return {
        **found,
        "counts": counts,
        "ever": any(counts.values()),
        "filter": {name: form.one(name) for name in (*FIELDS, "within")},
        "is_filtered": bool(form.given(*FIELDS, "within")),
        "windows": tuple(WINDOWS),
        "bulks": bulks,
        "is_any_live": any(one["state"] in LIVE for one in bulks),
    }


async def read_list(ask: Ask) -> Document:
    """Return one page of those that match."""
    source, form = ask.source, ask.form
    state = form.one("state")
    if state and state not in list(DeadLetterState):
        raise InvalidMessage("state", state, f"one of {', '.join(DeadLetterState)}")
    wanted = _wanted(form, source.clock.now())
    if state:
        wanted["state"] = DeadLetterState(state)
    found = await source.letters.ls(limit=PAGE_ROWS, after=form.one("after") or None, **wanted)
    counts = await source.store.dead_letters.counts()
    return {
        "rows": found["dead_letters"],
        "next": found["next"],
        "state": state,
        "states": list(DeadLetterState),
        "counts": counts,
        "filter": {name: form.one(name) for name in (*FIELDS, "within", "since")},
        "is_filtered": bool(form.given(*FIELDS, "within", "since")),
        "windows": tuple(WINDOWS),
    }


async def read_one(ask: Ask) -> Document:
    """Return everything that is known of one. Raises NotFound."""
    source = ask.source
    letter = await source.letters.show(ask.id)
    message = letter["message"]
    row = (await stranded_queues(source.store.state, letter["service"])).get(letter["consumer"])
    original = letter["original_body"]
    diff = None
    if original is not None and "body" in original and "body" in message:
        diff = difference(original["body"].encode(), message["body"].encode())
    return {
        "letter": letter,
        "message": message,
        "diff": diff,
        "can_replay": letter["state"] == DeadLetterState.OPEN or letter["is_stuck"],
        "can_discard": letter["state"] in (DeadLetterState.OPEN, DeadLetterState.REPLAYING, DeadLetterState.HELD),
        "stranded": None if row is None else row.sentence(letter["consumer"], letter["service"]),
        "has_code": source.own == letter["service"],
        "is_text": "body" in message and len(message["body"]) <= _SHOWN_BODY,
    }


async def read_confirm(ask: Ask) -> Document:
    """Return what a verb would be about, and why it might not be: nothing is changed."""
    source, form = ask.source, ask.form
    verb, ids = form.one("verb"), tuple(dict.fromkeys(form.all("ids")))
    if verb not in list(BulkVerb):
        raise InvalidMessage("verb", verb, f"one of {', '.join(BulkVerb)}")
    wanted: dict[str, Any] = {"ids": ids} if ids else _wanted(form, source.clock.now())
    desk = source.letters
    count = await desk.matching(verb, **wanted)
    sample = (await desk.ls(limit=5, **wanted))["dead_letters"]
    fields = {
        "because" if name == "reason" else name: value.isoformat() if name == "since" else value
        for name, value in wanted.items()
        if name != "ids"
    }
    stranded = []
    for service in {one["service"] for one in sample if one["service"]}:
        rows = await stranded_queues(source.store.state, service)
        stranded += [rows[name].sentence(name, service) for name in {one["consumer"] for one in sample} & set(rows)]
    return {
        "verb": verb,
        "ids": ids,
        "fields": fields,
        "count": count,
        "sample": sample,
        "typed": count > TYPED_FROM,
        "stranded": stranded,
    }


async def read_bulk(ask: Ask) -> Document:
    """Return one bulk, and how those it moved fare. Raises NotFound."""
    bulk = await ask.source.letters.bulk(ask.id)
    return {"bulk": bulk, "is_live": bulk["state"] in LIVE, "is_early": bulk["state"] in ENDED_EARLY}


# --- act -------------------------------------------------------------------------------------------------------------


async def replay(ask: Ask) -> Done:
    """Send one again."""
    to = ask.form.one("to")
    await ask.source.letters.replay(
        ask.id,
        actor=ask.principal.name,
        reason=ask.reason,
        to=f"queue:{to}" if to else None,
        force=bool(ask.form.one("force")),
    )
    return Done("Sent again. It is closed when its handler succeeds, and open again if it fails.")


async def discard(ask: Ask) -> Done:
    """Close one for good."""
    await ask.source.letters.discard(ask.id, actor=ask.principal.name, reason=ask.reason)
    return Done("Discarded. It stays readable for 30 days.")


async def edit(ask: Ask) -> Done:
    """Give one another body."""
    form = ask.form
    await ask.source.letters.edit(
        ask.id,
        actor=ask.principal.name,
        reason=ask.reason,
        body=form.text("body").encode(),
        version=form.whole("version", 1, 1_000_000),
        force=bool(form.one("force")),
    )
    return Done("Kept. Read the difference, then replay it.", f"/dead-letters/{ask.id}")


def _act(verb: str) -> Callable[[Ask], Any]:
    async def act(ask: Ask) -> Done:
        """Do it to each that is named, or start a bulk about all that match."""
        form, desk = ask.form, ask.source.letters
        who: dict[str, Any] = {"actor": ask.principal.name, "reason": ask.reason}
        if ids := form.all("ids"):
            return await _each(ask, verb, list(dict.fromkeys(ids))[:PAGE_ROWS], who)
        wanted = _wanted(form, ask.source.clock.now())
        count = await desk.matching(verb, **wanted)
        if count > TYPED_FROM and form.one("typed").replace(" ", "").replace(",", "") != str(count):
            raise InvalidMessage("typed", form.one("typed"), f"{count} match now; type that number to go on")
        bulk = await desk.start_bulk(verb, canary=bool(form.one("canary")), **who, **wanted)
        return Done(f"Started: {verb} {bulk['total']} dead letters.", f"/dead-letters/bulks/{bulk['id']}")

    return act


async def _each(ask: Ask, verb: str, ids: list[str], who: dict[str, Any]) -> Done:
    done, refused = 0, list[str]()
    for id in ids:
        try:
            if verb == BulkVerb.REPLAY:
                await ask.source.letters.replay(id, **who)
            else:
                await ask.source.letters.discard(id, **who)
        except SpoolproofError as error:  # one that is refused keeps none of the others back
            refused.append(str(error))
        else:
            done += 1
    told = f"{done} of {len(ids)} {'sent again' if verb == BulkVerb.REPLAY else 'discarded'}."
    return Done(told + (f" Refused: {'; '.join(refused[:3])}" if refused else ""), "/dead-letters/list")


async def cancel(ask: Ask) -> Done:
    """Stop a bulk; it can go on later."""
    found = await ask.source.letters.cancel(ask.id, actor=ask.principal.name, reason=ask.reason)
    return Done(f"Stopped: {found['moved']} were moved, {found['left']} are left as they were.")


async def resume(ask: Ask) -> Done:
    """Let a bulk go on."""
    await ask.source.letters.resume(ask.id, actor=ask.principal.name, reason=ask.reason)
    return Done("It goes on, with one first.")


def _filter_of(ask: Ask) -> str:
    ids = ask.form.all("ids")
    if ids:
        return f"{len(ids)}: {', '.join(ids)}"
    given = ask.form.given(*FIELDS, "within", "since")
    return ", ".join(f"{name}={value}" for name, value in given.items()) or "all"


_TOPICS = ("letters", "bulks", "store")
PAGES = (
    Page(
        path="/dead-letters",
        title="Dead letters",
        read=read_groups,
        template="letters.html",
        key="d",
        section="Decide",
        topics=_TOPICS,
    ),
    Page(
        path="/dead-letters/list",
        title="Dead letters",
        read=read_list,
        template="letters_list.html",
        under="/dead-letters",
        topics=_TOPICS,
    ),
    Page(
        path="/dead-letters/confirm",
        title="Dead letters",
        read=read_confirm,
        template="letters_confirm.html",
        under="/dead-letters",
    ),
    Page(
        path="/dead-letters/bulks/{id}",
        title="Bulk",
        read=read_bulk,
        template="bulk.html",
        under="/dead-letters",
        topics=_TOPICS,
    ),
    Page(
        path="/dead-letters/{id}",
        title="Dead letter",
        read=read_one,
        template="letter.html",
        under="/dead-letters",
        topics=_TOPICS,
    ),
    Page(
        path="/dead-letters/{id}/edit",
        title="Edit",
        read=read_one,
        template="letter_edit.html",
        permission="dead-letter:edit",
        under="/dead-letters",
    ),
)
ACTIONS = (
    Action(
        path="/dead-letters/replay",
        name="dead-letter:replay",
        permission="dead-letter:replay",
        run=_act("replay"),
        target=_filter_of,
    ),
    Action(
        path="/dead-letters/discard",
        name="dead-letter:discard",
        permission="dead-letter:discard",
        run=_act("discard"),
        target=_filter_of,
    ),
    Action(path="/dead-letters/{id}/replay", name="dead-letter:replay", permission="dead-letter:replay", run=replay),
    Action(
        path="/dead-letters/{id}/discard", name="dead-letter:discard", permission="dead-letter:discard", run=discard
    ),
    Action(path="/dead-letters/{id}/edit", name="dead-letter:edit", permission="dead-letter:edit", run=edit),
    Action(path="/dead-letters/bulks/{id}/cancel", name="bulk:cancel", permission="dead-letter:replay", run=cancel),
    Action(path="/dead-letters/bulks/{id}/resume", name="bulk:resume", permission="dead-letter:replay", run=resume),
)
