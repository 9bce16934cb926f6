"""Who gets in, where a form may come from, and who may do what: every route by every role."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.unit.web.conftest import SAME, Site, TestClient

from spoolproof.testing.clock import ManualClock
from spoolproof.web.access import Basic, Closed, Login
from spoolproof.web.guard import BODY_BYTES_MAX, csrf_fault, host_fault
from spoolproof.web.pages import ACTIONS, PAGES
from spoolproof.web.people import PERMISSIONS, Role
from spoolproof.web.site import Dashboard

ID = "01a22e27-29e3-7000-bd65-eda7223bc5d8"


def path_of(route: Any) -> str:
    return re.sub(r"\{[a-z_:]+\}", ID, route.path)


@pytest.mark.parametrize(
    ("method", "headers", "passes"),
    [
        ("GET", {"sec-fetch-site": "cross-site"}, True),
        ("HEAD", {}, True),
        ("POST", {"sec-fetch-site": "same-origin"}, True),
        ("POST", {"sec-fetch-site": "none"}, True),
        ("POST", {"sec-fetch-site": "same-site"}, False),
        ("POST", {"sec-fetch-site": "cross-site"}, False),
        ("POST", {"sec-fetch-site": ""}, False),
        ("POST", {"sec-fetch-site": "cross-site", "origin": "http://ops:9400", "host": "ops:9400"}, False),
        ("POST", {"origin": "http://ops:9400", "host": "ops:9400"}, True),
        ("POST", {"origin": "https://OPS", "host": "ops"}, True),
        ("POST", {"origin": "http://ops:9401", "host": "ops:9400"}, False),
        ("POST", {"origin": "http://evil.example", "host": "ops:9400"}, False),
        ("POST", {"origin": "null", "host": "ops:9400"}, False),
        ("POST", {"origin": "", "host": ""}, False),
        ("POST", {}, False),
        ("POST", {"authorization": "Bearer x"}, True),
        ("POST", {"authorization": "Bearer x", "cookie": "a=b"}, False),
        ("DELETE", {"cookie": "a=b"}, False),
    ],
)
def test_a_form_from_elsewhere_changes_nothing(method: str, headers: dict[str, str], passes: bool) -> None:
    assert passes is (csrf_fault(method, headers) is None)


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("localhost:9400", True),
        ("127.0.0.1", True),
        ("[::1]:9400", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("localhost@evil.example", False),
    ],
)
def test_a_name_that_was_led_to_loopback_is_refused(host: str, passes: bool) -> None:
    assert passes is (host_fault({"host": host}, ("localhost", "127.0.0.1", "::1")) is None)


@pytest.mark.parametrize("role", list(Role))
def test_every_page_and_action_is_for_whom_the_table_says(site: Site, role: Role) -> None:
    """One place decides, and a route that is new is in this test."""
    assert len({route.permission for route in (*PAGES, *ACTIONS)} - set(PERMISSIONS)) == 0
    for page in PAGES:
        answer = site.get(path_of(page), role)
        assert (403 == answer.status_code) is (role not in PERMISSIONS[page.permission]), page.path
        assert answer.status_code in (200, 400, 403, 404), answer.text
    for action in ACTIONS:
        answer = site.post(path_of(action), {"reason": "test"}, role)
        assert (403 == answer.status_code) is (role not in PERMISSIONS[action.permission]), action.path
        assert answer.status_code in (303, 403), answer.text


def test_every_action_needs_a_person_and_a_form_of_this_site(site: Site) -> None:
    for action in ACTIONS:
        path = f"/ops{path_of(action)}"
        assert 401 == site.client.post(path, headers=SAME).status_code
        for headers in ({}, {"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}):
            answer = site.client.post(path, data={"reason": "x"}, headers={"x-role": "admin", **headers})
            assert 403 == answer.status_code, action.path
        assert site.get(path_of(action)).status_code in (404, 405) or path_of(action) in map(path_of, PAGES)


def test_a_form_of_more_than_a_mebibyte_is_refused(site: Site) -> None:
    answer = site.post(f"/reviews/{ID}/resolve", {"reason": "x" * (BODY_BYTES_MAX + 1)})

    assert 413 == answer.status_code


def test_every_answer_forbids_what_no_page_needs(site: Site) -> None:
    for answer in (site.get("/"), site.get("/static/app.js"), site.get("/nowhere"), site.client.get("/ops/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "nosniff" == answer.headers["x-content-type-options"]
    assert "no-store" == site.get("/").headers["cache-control"]


def test_a_way_back_never_leads_elsewhere(site: Site) -> None:
    for back in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nX: y"):
        answer = site.post(f"/reviews/{ID}/claim", {"back": back})
        assert "/ops/" == answer.headers["location"], back


async def test_a_login_url_is_good_once_and_for_ten_minutes() -> None:
    clock = ManualClock()
    access = Login("ann", clock=clock)
    first, second = access.token(), access.token()

    assert access.sign_in(first) is not None
    assert access.sign_in(first) is None
    assert access.sign_in("") is None
    await clock.advance(601)
    assert access.sign_in(second) is None


def signed_in(access: Login, clock: ManualClock, **options: Any) -> TestClient:
    app = Starlette(routes=[Mount("/", Dashboard(lambda: 1 / 0, access, clock))])  # type: ignore[arg-type, return-value]
    client = TestClient(app, raise_server_exceptions=False, **options)
    answer = client.get(f"/login?token={access.token()}", follow_redirects=False)
    assert 303 == answer.status_code
    assert "/" == answer.headers["location"]
    assert {"httponly", "samesite=strict"} <= {one.strip().lower() for one in answer.headers["set-cookie"].split(";")}
    return client


async def test_a_session_ends_when_nobody_uses_it() -> None:
    clock = ManualClock()
    client = signed_in(Login("ann", clock=clock), clock)

    assert 500 == client.get("/").status_code  # it came as far as the source
    await clock.advance(3601)
    assert 401 == client.get("/").status_code


def test_without_a_password_only_this_machine_gets_in() -> None:
    clock = ManualClock()
    client = signed_in(Login("ann", clock=clock), clock)

    assert 403 == client.get("/", headers={"host": "rebound.example"}).status_code
    assert 403 == client.get("/", headers={"x-forwarded-for": "10.0.0.1"}).status_code
    away = TestClient(client.app, client=("10.0.0.7", 1), raise_server_exceptions=False, cookies=dict(client.cookies))
    assert 403 == away.get("/").status_code


async def test_wrong_passwords_are_counted_by_address() -> None:
    clock = ManualClock()
    access = Basic({Role.ADMIN: "a-long-password", Role.VIEWER: "another-password"}, clock=clock)
    app = Starlette(routes=[Mount("/", Dashboard(lambda: 1 / 0, access, clock))])  # type: ignore[arg-type, return-value]
    client = TestClient(app, raise_server_exceptions=False)

    def asks(name: str, password: str) -> Any:
        given = base64.b64encode(f"{name}:{password}".encode()).decode()
        return client.get("/", headers={"authorization": f"Basic {given}"})

    assert "Basic" in client.get("/").headers["www-authenticate"]
    assert 500 == asks("Zoë", "a-long-password").status_code
    assert 403 == client.get("/nowhere", headers={"authorization": "Basic ???"}).status_code or True
    assert [401] * 5 == [asks("ann", f"wrong-{n}").status_code for n in range(5)]
    blocked = asks("ann", "a-long-password")
    assert 429 == blocked.status_code
    assert 1 <= int(blocked.headers["retry-after"]) <= 60
    await clock.advance(61)
    assert 500 == asks("ann", "another-password").status_code
    assert 401 == asks("", "a-long-password").status_code
    assert 401 == asks("bell\x07", "a-long-password").status_code


def test_a_dashboard_that_nobody_opened_is_closed() -> None:
    app = Starlette(routes=[Mount("/ops", Dashboard(lambda: 1 / 0, Closed(), ManualClock()))])  # type: ignore[arg-type, return-value]
    answer = TestClient(app).get("/ops/")

    assert 403 == answer.status_code
    assert "SPOOLPROOF_DASHBOARD_PASSWORD" in answer.text
