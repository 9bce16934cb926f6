"""`spoolproof alert`: what fires and since when, who was told, and being spared for a while."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from spoolproof.alerts import desk
from spoolproof.alerts.engine import Alert, AlertState
from spoolproof.alerts.notify import Notification, NotTaken, Sink
from spoolproof.alerts.rules import BY_NAME
from spoolproof.alerts.settings import AlertSettings
from spoolproof.alerts.sinks import make_sinks
from spoolproof.cli.exits import Refused, Usage
from spoolproof.cli.group import Group
from spoolproof.cli.options import Actor, AsJson, Reason, actor_or_user
from spoolproof.cli.output import emit, plain, say, table
from spoolproof.cli.store import with_store
from spoolproof.clock import SystemClock
from spoolproof.ids import Ids
from spoolproof.settings import load_settings

_FINE = {"safe": "Nothing is wrong.", "remedy": "Nothing is to be done: spoolproof alert ls"}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
Service = Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")]
Rule = Annotated[str, typer.Argument(metavar="ALERT", help="Its name, as OutboxPending.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Those of it alone.")]


def ls(as_json: AsJson = False) -> None:
    """List what is pending and firing, what has just ended, and what is silenced."""
    found = with_store(lambda store: desk.ls(store, SystemClock()))
    if as_json:
        emit("alert.ls", found)
        return
    if not found["alerts"]:
        say("no alerts")
    else:
        columns = ("alert", "severity", "state", "since", "service", "acknowledged_by", "silenced_until", "what")
        rows = [[one.get(column) for column in columns] for one in found["alerts"]]
        table([column.replace("_", " ") for column in columns], rows)
    for one in found["alerts"]:
        if one["state"] == AlertState.FIRING and "remedy" in one:
            say(plain(f"{one['alert']}: {one['safe']} {one['remedy']}"))
    for one in found["silences"]:
        about = f"{one['rule']} {_text(one['labels'])}until {plain(one['ends_at'])}"
        say(plain(f"silence {one['id']}: {about}, {one['author']}: {one['reason']}"))


def silence(
    service: Service,
    rule: Rule,
    reason: Reason,
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="As 30m, 2h, 7d; at most 7d.")],
    labels: Labels = None,
    actor: Actor = "",
    as_json: AsJson = False,
) -> None:
    """Tell nobody of an alert for a while; it is shown nevertheless."""
    clock, wanted, seconds = SystemClock(), _labels(labels), _seconds(duration)
    done = with_store(
        lambda store: desk.silence(
            *(store, clock, Ids(clock), service, rule, wanted),
            seconds=seconds,
            author=actor_or_user(actor),
            reason=reason,
        )
    )
    if as_json:
        emit("alert.silence", done)
    else:
        until, end = plain(done["ends_at"]), f"spoolproof alert unsilence {service} {done['id']}"
        say(plain(f"silenced {rule} of {service} until {until}; {end}"))


def unsilence(
    service: Service, id: Annotated[str, typer.Argument(metavar="ID", help="As ls shows it.")], as_json: AsJson = False
) -> None:
    """End a silence."""
    with_store(lambda store: desk.unsilence(store, service, id))
    if as_json:
        emit("alert.unsilence", {"ended": id})
    else:
        say(f"ended {plain(id)}")


def acknowledge(
    service: Service, rule: Rule, labels: Labels = None, actor: Actor = "", as_json: AsJson = False
) -> None:
    """Say that you have it in hand: it is not repeated until it is over."""
    wanted, who = _labels(labels), actor_or_user(actor)
    done = with_store(lambda store: desk.acknowledge(store, SystemClock(), service, rule, wanted, author=who))
    if as_json:
        emit("alert.acknowledge", done)
    else:
        say(plain(f"acknowledged {done['alert']} of {service}: {who}"))


def send_test(as_json: AsJson = False) -> None:
    """Send one message to everybody who is configured, now, and tell who took it."""
    clock = SystemClock()
    sinks = make_sinks(load_settings().of(AlertSettings), clock)
    if not sinks:
        raise Refused(
            "nobody is told of alerts but the log", "set SPOOLPROOF_ALERT_URLS_PAGE, …_WARN or …_ALERTMANAGER_URL"
        )
    results = asyncio.run(_sent(sinks))
    if as_json:
        emit("alert.test", {"sinks": results})
    else:
        for one in results:
            say(plain(f"{one['sink']} ({', '.join(one['severities'])}): {one['error'] or 'taken'}"))
    if any(one["error"] for one in results):
        raise typer.Exit(1)


async def _sent(sinks: list[Sink]) -> list[dict[str, Any]]:
    now, results = SystemClock().now(), []
    for sink in sinks:
        severity = min(sink.severities)
        alert = Alert(rule="Test", labels={}, state=AlertState.RESOLVED, severity=severity, since=now, fired_at=now)
        rule = BY_NAME["ConnectionLost"].moved(
            None, None, name="Test", severity=severity, what="This is a test.", **_FINE
        )
        note = Notification(service="spoolproof", rule=rule, alerts=(alert,))
        error: str | None = None
        try:
            await sink.send([note])
        except NotTaken as refused:
            error = str(refused)
        except Exception as caught:  # its text may hold the URL
            error = type(caught).__name__
        results.append({"sink": sink.name, "severities": sorted(sink.severities), "error": error})
    return results


def _labels(given: list[str] | None) -> dict[str, str]:
    pairs = [one.partition("=") for one in given or ()]
    if wrong := [name for name, equals, value in pairs if not (name and equals and value)]:
        raise Usage(f"--label {wrong[0]!r} is no NAME=VALUE", "write --label policy=payments")
    return {name: value for name, _, value in pairs}


def _seconds(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in _SECONDS or not number.isdecimal():
        raise Usage(f"--for {text!r} is no time", "write 30m, 2h or 7d")
    return float(int(number) * _SECONDS[unit])


def _text(labels: dict[str, str]) -> str:
    return "".join(f"{name}={value} " for name, value in labels.items())


GROUP = Group(
    "alert",
    {"ls": ls, "silence": silence, "unsilence": unsilence, "acknowledge": acknowledge, "test": send_test},
    "What is wrong, who was told, and being spared for a while.",
)
