"""The page for staff: what it shows, who has what, and that nothing is done without its record."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.web.conftest import Site

from spoolproof.errors import StoreUnavailable
from spoolproof.ports.audit import Audit, AuditRecord

NASTY = "<script>alert(1)</script>\x1b[31m\u202e"


def opened(site: Site, subject: str = "o-1", **options: Any) -> str:
    reviews = site.service.reviews
    site.run(reviews.open, "order.flagged", subject, "May it go?", **options)
    found = site.run(reviews.ls, subject=subject)
    return str(found["items"][0]["id"])


def audit_of(site: Site) -> list[AuditRecord]:
    return list(site.run(site.service.runtime.store.port(Audit).search, None, 50))


def test_an_item_is_claimed_decided_and_recorded(site: Site) -> None:
    id = opened(site)

    assert "You have it" in site.told(site.post(f"/reviews/{id}/claim"))
    second = site.told(site.post(f"/reviews/{id}/claim", name="Ben", role="reviewer"))
    assert "claimed by Ann until" in second
    assert "Ann has this item" in site.get(f"/reviews/{id}", "reviewer").text
    done = site.post(f"/reviews/{id}/resolve", {"action": "approve", "reason": "called them"})
    assert "Decided: approve." in site.told(done)

    records = audit_of(site)
    assert [("Ann", "review:resolve", True), ("Ben", "review:claim", False), ("Ann", "review:claim", True)] == [
        (one.actor, one.action, one.is_ok) for one in records
    ]
    assert "called them" == records[0].reason
    assert all(one.ended_at is not None and one.target == id for one in records)
    assert "by <strong>Ann</strong>" in site.get(f"/reviews/{id}").text


def test_an_effect_that_fails_leaves_the_item_open_and_says_why(site: Site) -> None:
    id = opened(site)

    first = site.told(site.post(f"/reviews/{id}/resolve", {"action": "refund", "reason": "lost"}))
    again = site.told(site.post(f"/reviews/{id}/resolve", {"action": "refund", "reason": "yes"}, name="Ben"))

    assert "A second person must agree" in first
    assert "RuntimeError: the bank &lt;b&gt;is closed&lt;/b&gt;" in again
    assert "open" == site.run(site.service.reviews.show, id)["state"]
    assert not audit_of(site)[0].is_ok


@pytest.mark.parametrize(("field", "value"), [("reason", " "), ("reason", "x" * 501), ("action", "no-such")])
def test_a_decision_that_is_not_whole_changes_nothing(site: Site, field: str, value: str) -> None:
    id = opened(site)
    form = {"action": "approve", "reason": "ok", field: value}

    assert "bad" in site.told(site.post(f"/reviews/{id}/resolve", form))
    assert "open" == site.run(site.service.reviews.show, id)["state"]


def test_what_cannot_be_recorded_is_not_done(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    id = opened(site)
    audit = site.service.runtime.store.port(Audit)

    async def away(record: AuditRecord) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(audit, "begin", away)

    assert "gone" in site.told(site.post(f"/reviews/{id}/resolve", {"action": "approve", "reason": "ok"}))
    assert "open" == site.run(site.service.reviews.show, id)["state"]


def test_foreign_text_is_text(site: Site) -> None:
    """Evidence and subjects come from strangers: nothing of them is obeyed by a browser or a terminal."""
    id = opened(site, NASTY, evidence={NASTY: [NASTY, {"deep": NASTY}]})

    for page in (site.get(f"/reviews/{id}"), site.get("/reviews")):
        assert "<script>alert" not in page.text
        assert "\x1b" not in page.text
        assert "\u202e" not in page.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m\\u202e" in page.text


def test_with_the_store_away_the_last_page_is_shown_and_nothing_can_be_pressed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = opened(site)
    path = f"/reviews/{id}"
    assert "The store is away" not in site.get(path).text
    reviews = type(
        site.service.runtime.store.port(__import__("spoolproof.ports.reviews", fromlist=["Reviews"]).Reviews)
    )

    async def away(self: object, *_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(reviews, "get", away)
    monkeypatch.setattr(reviews, "search", away)

    kept, unknown = site.get(path).text, site.get("/reviews?show=overdue").text
    assert "The store is away" in kept
    assert "May it go?" in kept
    assert 'value="approve" class="primary" disabled title="the store is away"' in kept
    assert "This process, live" in unknown
    assert "Nothing was read from it yet" in unknown


def test_what_is_secret_is_not_shown(site: Site) -> None:
    """Pages are looked at over shoulders, and copied from; who edits a message sees it as it is."""
    id = opened(site, evidence={"password": "hunter2", "note": "Authorization: Bearer abcdefgh12345678"})

    page = site.get(f"/reviews/{id}").text

    assert "hunter2" not in page
    assert "abcdefgh12345678" not in page


def test_what_one_saw_is_not_shown_to_another_while_the_store_is_away(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise Ben reads that he has what Ann has."""
    id = opened(site)
    site.told(site.post(f"/reviews/{id}/claim"))
    assert "o-1" in site.get("/reviews?tab=mine", **{"x-name": "Ann"}).text

    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(site.service.runtime.store.services, "all", away)
    ann, ben = (site.get("/reviews?tab=mine", **{"x-name": name}).text for name in ("Ann", "Ben"))

    assert "o-1" in ann
    assert "o-1" not in ben
