"""Dead letters as a person has them: one looked at, mended, sent again; many counted before anything is done."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.unit.web.conftest import Site

from spoolproof.dead_letters.record import consumer_dead_letter
from spoolproof.message import Message
from spoolproof.ports.audit import Audit

NASTY = "<img src=x onerror=alert(1)>\x1b]0;\u202e"


def given_up(site: Site, n: int, error: str = "the card was refused") -> str:
    """Return the id of a dead letter that is given up with this error."""
    now = datetime(2026, 11, 30, 9, tzinfo=UTC)
    message = Message(id=f"m-{n}", type="shop.placed", source="shop", time=now, key=NASTY, body=b'{"cents": 5}')
    id = f"01a22e4b-3129-7000-b3f6-d4ab467b9{n:03d}"
    record = consumer_dead_letter(
        **{"id": id, "queue": "billing", "message": message, "message_id": message.id, "reason": "handler"},
        **{"error": ValueError(error), "detail": "", "attempts": (), "now": now},
    )
    assert site.run(site.service.runtime.store.dead_letters.add, record)
    return id


def state_of(site: Site, id: str) -> str:
    return str(site.run(site.service.dead_letters.show, id)["state"])


def test_one_is_mended_read_again_and_sent(site: Site) -> None:
    id = given_up(site, 1)

    edited = site.post(
        f"/dead-letters/{id}/edit", {"body": '{"cents": 6}', "reason": "typo", "force": "1", "version": "1"}
    )
    assert "Read the difference" in site.told(edited)
    page = site.get(f"/dead-letters/{id}").text
    assert '<span class="del">-  &#34;cents&#34;: 5</span>' in page
    assert '<span class="add">+  &#34;cents&#34;: 6</span>' in page
    late = site.post(
        f"/dead-letters/{id}/edit", {"body": '{"cents": 7}', "reason": "typo", "version": "1", "force": "1"}
    )
    assert "not the open version 1" in site.told(late)
    assert "Sent again" in site.told(site.post(f"/dead-letters/{id}/replay", {"reason": "mended"}))

    assert state_of(site, id) in ("replaying", "resolved")
    assert "open" not in state_of(site, id)


def test_many_are_counted_first_and_what_is_selected_is_done_at_once(site: Site) -> None:
    ids = [given_up(site, n) for n in range(5)]

    confirm = site.get("/dead-letters/confirm?verb=discard&consumer=billing").text
    assert "Discard 5 dead letters?" in confirm
    assert {"open"} == {state_of(site, id) for id in ids}
    done = site.client.post(
        "/ops/dead-letters/discard",
        content=f"ids={ids[0]}&ids={ids[1]}&ids=no-such&reason=spam",
        headers={"sec-fetch-site": "same-origin", "x-role": "operator", "x-name": "Ann"},
        follow_redirects=False,
    )
    assert "2 of 3 discarded." in site.told(done)
    bulk = site.post("/dead-letters/discard", {"consumer": "billing", "reason": "spam"})
    assert "3 dead letters" in site.told(bulk)
    assert "Left" in site.client.get(bulk.headers["location"], headers={"x-role": "viewer"}).text
    assert ["consumer=billing", f"3: {ids[0]}, {ids[1]}, no-such"] == [
        one.target for one in site.run(site.service.runtime.store.port(Audit).search, None, 2)
    ]


def test_a_viewer_sees_what_failed_and_nothing_of_the_payload(site: Site) -> None:
    id = given_up(site, 1, NASTY)

    for path in (f"/dead-letters/{id}", "/dead-letters", "/dead-letters/list", f"/message?q={id}", "/"):
        page = site.get(path, "viewer").text
        assert "<img" not in page
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert "cents" not in page
    assert "cents" in site.get(f"/dead-letters/{id}", "operator").text
    assert 'disabled title="for operator or admin only"' in site.get(f"/dead-letters/{id}", "viewer").text


def test_pages_say_why_they_are_empty(site: Site) -> None:
    """Nothing ever happened, nothing matches, and not configured are three things."""
    assert "Nothing was ever given up on" in site.get("/dead-letters").text
    given_up(site, 1)
    assert "Nothing matches" in site.get("/dead-letters?consumer=other").text
    assert "spoolproof webhook add" in site.get("/webhooks").text
    assert 400 == site.get("/dead-letters?within=forever").status_code
    assert 400 == site.get("/dead-letters/list?after=nowhere").status_code
