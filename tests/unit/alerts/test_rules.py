"""Every rule, played through on the manual clock: it fires, it clears, and its words hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import pytest

import spoolproof
from spoolproof import Service
from spoolproof.alerts.engine import Alert, AlertState, Told, follow, is_muted, shares_of, values_of
from spoolproof.alerts.fact import Age, Fact, History, Level, Quantile, Rise, Share
from spoolproof.alerts.rule import Rule, Severity
from spoolproof.alerts.rules import BY_NAME, RULES
from spoolproof.alerts.settings import AlertSettings, rules_of
from spoolproof.cli.app import command_of
from spoolproof.errors import SettingsError
from spoolproof.settings import Settings
from spoolproof.telemetry.metrics import METRICS, Kind, Sample

START = datetime(2026, 1, 1, tzinfo=UTC)
for file in Path(spoolproof.__file__).parent.rglob("events.py"):
    import_module(".".join(("spoolproof", *file.relative_to(Path(spoolproof.__file__).parent).with_suffix("").parts)))


class Plant:
    """Samples that make a fact be a number, as time goes by."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, tuple[str, ...]], list[float]] = {}

    def samples(self, wanted: Iterable[tuple[Fact, float]], at: float) -> list[Sample]:
        found: dict[tuple[str, tuple[str, ...]], Sample] = {}
        for fact, value in wanted:
            for one in self._of(fact, value, at):
                found[one.metric.name, one.labels] = one
        return list(found.values())

    def _of(self, fact: Fact, value: float, at: float) -> Iterable[Sample]:
        metric = METRICS[fact.metric]
        labels = _labels(metric.labels, fact.where)
        if isinstance(fact, Age):
            yield Sample(metric, labels, START.timestamp() + at - value)
        elif isinstance(fact, Level):
            yield Sample(metric, labels, value)
        elif isinstance(fact, Quantile):
            counts = self.counts.setdefault((metric.name, labels), [0.0] * (len(metric.buckets) + 1))
            counts[sum(bound < value for bound in metric.buckets)] += 100
            yield Sample(metric, labels, sum(counts), tuple(map(int, counts)))
        elif isinstance(fact, Share):
            whole = METRICS[fact.whole or fact.metric]
            good = _labels(whole.labels, fact.of_whole, avoid=fact.where if whole is metric else {})
            bad = self._add(metric.name, labels, 1000 * value)
            yield Sample(metric, labels, bad)
            rest = 1000 * (1 - value) if whole is metric else 1000
            yield Sample(whole, good, self._add(whole.name, good, rest))
        elif isinstance(fact, Rise):
            yield Sample(metric, labels, self._add(metric.name, labels, value))

    def _add(self, name: str, labels: tuple[str, ...], count: float) -> float:
        total = self.counts.setdefault((name, labels), [0.0])
        total[0] += count
        return total[0]


def _labels(
    names: Iterable[str], where: Mapping[str, Iterable[str]], avoid: Mapping[str, Iterable[str]] | None = None
) -> tuple[str, ...]:
    """Return label values that count; or with `avoid`, some that do not."""

    def one(name: str) -> str:
        if avoid is not None and f"!{name}" in avoid:
            return min(avoid[f"!{name}"])
        return "other" if f"!{name}" in where else min(where.get(name, ("x",)))

    return tuple(map(one, names))


def play(rule: Rule, values: Iterable[float], guard: float = 1.0) -> list[Alert | None]:
    """Look every five seconds while the fact is these numbers, one after the other; a rise comes at once."""
    history, plant = History({rule.fact.metric, getattr(rule.fact, "whole", "") or rule.fact.metric}), Plant()
    alert: Alert | None = None
    seen: list[Alert | None] = []
    history.take(plant.samples([(rule.fact, 0.0)], 0.0), 0.0)
    before = None
    for step, value in enumerate(values, 1):
        at = step * 5.0
        shown = value
        if isinstance(rule.fact, Rise | Share | Quantile) and value == before and not rule.is_below:
            shown = 0.0 if isinstance(rule.fact, Rise) else value
        wanted = [(rule.fact, shown)]
        if rule.when is not None:
            wanted.append((rule.when, guard))
        history.take(plant.samples(wanted, at), at)
        now = START + timedelta(seconds=at)
        found = values_of(rule, [shares_of([rule], history)], now)
        labels = next(iter(found), ("x",) * len(rule.fact.labels))
        named = dict(zip(rule.fact.labels, labels, strict=True))
        alert = follow(rule, named, alert, found.get(labels), now)
        seen.append(alert)
        before = value
    return seen


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_it_fires_when_it_is_bad_for_long_enough_and_ends_when_it_is_well(rule: Rule) -> None:
    """And an operator reads what is wrong, what is safe and which command helps."""
    if isinstance(rule.fact, Share):
        bad, well = min(1.0, rule.trigger * 3), 0.0
    elif rule.is_below:
        bad, well = 0.0, rule.clears_at * 2
    else:
        bad, well = rule.trigger * 2 + 1, 0.0
    steps = int(max(rule.for_seconds, rule.fact.seconds if rule.is_below else 0) / 5) + 3
    rest = int((rule.keep_seconds + rule.fact.seconds) / 5) + 8

    seen = play(rule, [bad] * steps + [well] * rest)

    firing = [one for one in seen if one is not None and one.state is AlertState.FIRING]
    assert firing, rule.name
    first = firing[0]
    assert first.fired_at is not None
    assert first.fired_at - START >= timedelta(seconds=rule.for_seconds)
    assert seen[-1] is not None
    assert AlertState.RESOLVED is seen[-1].state
    words = rule.words(first.labels, first.value)
    assert all(sentence.rstrip(".").strip() and "{" not in sentence for sentence in words.values())


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.for_seconds > 5], ids=lambda rule: rule.name)
def test_a_moment_is_no_alert(rule: Rule) -> None:
    """A burst, a deploy, a reconnect."""
    bad = 0.0 if rule.is_below else 1.0 if isinstance(rule.fact, Share) else rule.trigger * 2 + 1
    seen = play(rule, [bad] * 2)
    assert not [one for one in seen if one is not None and one.state is AlertState.FIRING]


def test_between_trigger_and_clear_it_stays_as_it_is() -> None:
    """Nothing flaps on the line."""
    rule = BY_NAME["OutboxPending"]
    seen = play(rule, [90.0] * 10 + [101.0] * 10 + [90.0] * 40)
    assert seen[9] is None
    assert seen[-1] is not None
    assert AlertState.FIRING is seen[-1].state


def test_a_guard_holds_an_alert_back() -> None:
    """An empty queue stalls nobody."""
    rule = BY_NAME["ConsumerStalled"]
    assert [None] * 150 == play(rule, [0.0] * 150, guard=0.0)


def test_the_processes_of_a_service_are_one() -> None:
    """Counts add up, of a state the worst counts, and a ratio is that of all together."""
    now = START
    failing = BY_NAME["PublishFailing"]
    shares = [{failing.name: {(): (1.0, 15.0)}}, {failing.name: {(): (0.0, 15.0)}}, {}]
    assert {(): 1 / 30} == values_of(failing, shares, now)
    assert {} == values_of(failing, shares[:1], now)  # too few to say anything
    lost = BY_NAME["ConnectionLost"]
    shares = [{lost.name: {("db",): (1.0,)}}, {}]
    assert {("db",): 1.0} == values_of(lost, shares, now)


def test_a_cause_that_fires_mutes_what_follows_from_it() -> None:
    def firing(name: str, **labels: str) -> Alert:
        return Alert(rule=name, labels=labels, state=AlertState.FIRING, severity=Severity.WARN, since=START)

    pending, lost = firing("OutboxPending"), BY_NAME["ConnectionLost"]
    assert is_muted(pending, BY_NAME["OutboxPending"], [firing("ConnectionLost", dependency="rabbitmq")])
    assert not is_muted(pending, BY_NAME["OutboxPending"], [firing("ConnectionLost", dependency="db")])
    gone = firing("ConnectionLost", dependency="db")
    assert is_muted(gone, lost, [firing("DisconnectedLong", dependency="db")])
    assert not is_muted(gone, lost, [firing("DisconnectedLong", dependency="rabbitmq")])


def test_what_comes_back_is_the_same_story() -> None:
    """Who was told that it fired, and not yet that it ended, is not told again when it fires again."""
    rule = BY_NAME["BreakerOpen"]
    told = {"s": Told(state=AlertState.FIRING, at=START)}
    over = Alert(
        rule=rule.name,
        labels={"policy": "p"},
        state=AlertState.RESOLVED,
        severity=rule.severity,
        since=START,
        told=told,
    )
    again = follow(rule, over.labels, over, 1.0, START)
    assert again is not None
    assert (AlertState.FIRING, told) == (again.state, again.told)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_holds_to_what_there_is(rule: Rule) -> None:
    """Metrics, labels, other rules, commands: all of them exist, and the clear line is on the good side."""
    for fact in (rule.fact, rule.when):
        if fact is not None:
            metric = METRICS[fact.metric]
            assert {*fact.by, *(name.lstrip("!") for name in fact.where)} <= set(metric.labels)
            assert (metric.kind is Kind.COUNTER) is isinstance(fact, Rise | Share)
            assert not fact.renamed or len(fact.by) == 1
    assert {cause.partition(":")[0] for cause in rule.muted_by} <= BY_NAME.keys()
    assert not rule.is_bad(rule.clears_at)
    command = re.search(r"spoolproof ([a-z]+(?: [a-z]+)?)", rule.remedy)
    assert command is not None, rule.remedy
    assert command_of(command[1].split()) in (command[1].replace(" ", "."), command[1].split()[0])
    assert command_of(command[1].split()) != "usage"


def test_the_numbers_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """One number moves the other with it; nonsense is a fault that names both."""
    monkeypatch.setenv("SPOOLPROOF_ALERT_OUTBOX_PENDING_ABOVE", "1000")
    monkeypatch.setenv("SPOOLPROOF_ALERT_CACHE_LOCAL_SEVERITY", "off")
    monkeypatch.setenv("SPOOLPROOF_ALERT_DISK_LOW_SEVERITY", "warn")
    rules = {rule.name: rule for rule in rules_of(Settings().of(AlertSettings))}
    assert (1000.0, 800.0) == (rules["OutboxPending"].trigger, rules["OutboxPending"].clear)
    assert "CacheLocal" not in rules
    assert Severity.WARN is rules["DiskLow"].severity
    monkeypatch.setenv("SPOOLPROOF_ALERT_OUTBOX_PENDING_CLEAR", "2000")
    with pytest.raises(
        SettingsError, match="OUTBOX_PENDING_CLEAR=2000: must be at most SPOOLPROOF_ALERT_OUTBOX_PENDING_A"
    ):
        rules_of(Settings().of(AlertSettings))
    monkeypatch.setenv("SPOOLPROOF_ALERT_OUTBOX_PENDING_CLEAR", "many")
    with pytest.raises(SettingsError, match="SPOOLPROOF_ALERT_OUTBOX_PENDING_CLEAR='many'"):
        Settings()
    monkeypatch.delenv("SPOOLPROOF_ALERT_OUTBOX_PENDING_CLEAR")
    monkeypatch.setenv("SPOOLPROOF_ALERT_OUTBOX_PENDING_OVER", "5")
    with pytest.raises(SettingsError, match="OUTBOX_PENDING_ABOVE"):
        Settings()


def test_these_are_the_numbers_that_were_asked_for() -> None:
    assert (100, 50, 0) == tuple(BY_NAME[name].trigger for name in ("OutboxPending", "ReviewQueueLong", "BreakerOpen"))


async def test_a_service_under_test_alarms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A quarter of an hour passes on the manual clock, and nothing is wrong."""
    async with Service("shop").test() as app:
        await app.advance(900)
    assert [] == [record.getMessage() for record in caplog.records if "alert.fired" in record.getMessage()]
