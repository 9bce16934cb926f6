"""A service in memory with its dashboard mounted; who asks is said in a header."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from spoolproof import Service, Settings, Transaction
from spoolproof.review.actions import Decision
from spoolproof.web.people import Principal, Role

with warnings.catch_warnings():  # newer releases would have another client than httpx
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

SAME = {"sec-fetch-site": "same-origin"}


def asked(request: Request) -> Principal | None:
    role = request.headers.get("x-role")
    return None if role is None else Principal(request.headers.get("x-name", role), Role(role))


def a_service() -> Service:
    service = Service("shop", settings=Settings(store="memory://", broker="memory://"))

    @service.reviews.action("order.flagged", "approve")
    async def approve(decision: Decision, tx: Transaction) -> None:
        """Lets it go."""
        await tx.publish({"id": decision.item.subject}, type="shop.order.approved")

    @service.reviews.action("order.flagged", "refund", four_eyes=True)
    async def refund(decision: Decision, tx: Transaction) -> None:
        raise RuntimeError("the bank <b>is closed</b>")

    return service


@dataclass
class Site:
    """A dashboard and the service it is of."""

    client: TestClient
    service: Service

    def run(self, function: Any, *given: Any, **named: Any) -> Any:
        async def call() -> Any:
            return await function(*given, **named)

        assert self.client.portal is not None
        return self.client.portal.call(call)

    def get(self, path: str, role: str = "admin", **headers: str) -> Any:
        return self.client.get(f"/ops{path}", headers={"x-role": role, **headers})

    def post(self, path: str, data: dict[str, str] | None = None, role: str = "admin", name: str = "Ann") -> Any:
        headers = {**SAME, "x-role": role, "x-name": name}
        return self.client.post(f"/ops{path}", data=data or {}, headers=headers, follow_redirects=False)

    def told(self, response: Any) -> str:
        """Return what the page says that an action leads to."""
        assert 303 == response.status_code, response.text
        page = self.client.get(response.headers["location"], headers={"x-role": "admin"})
        return page.text.partition('<div class="flash ')[2].partition("</div>")[0]


@pytest.fixture
def site() -> Iterator[Site]:
    service = a_service()
    app = Starlette(routes=[Mount("/ops", service.dashboard(auth=asked))], lifespan=service.lifespan)
    with TestClient(app, base_url="http://testserver") as client:
        yield Site(client, service)
