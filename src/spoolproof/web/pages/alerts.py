"""What needs a person: what fires and since when, who has it in hand, and being spared for a while."""

from __future__ import annotations

from spoolproof.alerts import desk
from spoolproof.alerts.engine import AlertState
from spoolproof.errors import InvalidMessage
from spoolproof.web.page import Action, Ask, Document, Done, Page

SILENCE_HOURS_MAX = 168


async def read(ask: Ask) -> Document:
    """Return alerts, those that fire first, and the silences that hold."""
    found = await desk.ls(ask.source.store, ask.source.clock)
    firing = sum(one["state"] == AlertState.FIRING for one in found["alerts"])
    return {**found, "firing": firing}


async def acknowledge(ask: Ask) -> Done:
    """Say that one has it in hand."""
    form, source = ask.form, ask.source
    await desk.acknowledge(
        source.store, source.clock, form.one("service"), form.one("rule"), _labels(ask), author=ask.principal.name
    )
    return Done("You have it in hand: it is not told again until it is over.")


async def silence(ask: Ask) -> Done:
    """Have nobody told for a while."""
    form, source = ask.form, ask.source
    hours = form.whole("hours", 1, SILENCE_HOURS_MAX)
    await desk.silence(
        *(source.store, source.clock, source.ids, form.one("service"), form.one("rule"), _labels(ask)),
        seconds=hours * 3600.0,
        author=ask.principal.name,
        reason=ask.reason,
    )
    return Done(f"Nobody is told of it for {hours} h. It is shown here nevertheless.")


async def unsilence(ask: Ask) -> Done:
    """End a silence."""
    await desk.unsilence(ask.source.store, ask.form.one("service"), ask.form.one("id"))
    return Done("The silence is over.")


def _labels(ask: Ask) -> dict[str, str]:
    pairs = [one.partition("=") for one in ask.form.all("label")]
    if any(not equals for _, equals, _ in pairs):
        raise InvalidMessage("label", ask.form.all("label"), "NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _identity(ask: Ask) -> str:
    return " ".join([ask.form.one("service"), ask.form.one("rule"), *ask.form.all("label")])


PAGES = (
    Page(
        path="/alerts",
        title="Alerts",
        read=read,
        template="alerts.html",
        key="a",
        section="Now",
        topics=("numbers", "processes", "store"),
    ),
)
ACTIONS = (
    Action(
        path="/alerts/acknowledge",
        name="alert:acknowledge",
        permission="alert:act",
        run=acknowledge,
        target=_identity,
        needs_reason=False,
    ),
    Action(path="/alerts/silence", name="alert:silence", permission="alert:act", run=silence, target=_identity),
    Action(
        path="/alerts/unsilence",
        name="alert:unsilence",
        permission="alert:act",
        run=unsilence,
        target=lambda ask: ask.form.one("id"),
        needs_reason=False,
    ),
)
