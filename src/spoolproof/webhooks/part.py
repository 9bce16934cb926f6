"""Webhooks in one process: the leases on their shards, the relay that ships them, and `service.webhooks`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.loop import Loop
from spoolproof.lifecycle.membership import Holding
from spoolproof.lifecycle.part import Part, Report
from spoolproof.lifecycle.registrations import Facet
from spoolproof.outbox.publish import Publisher
from spoolproof.policies import Registry
from spoolproof.ports.outbox import OutboxRow
from spoolproof.ports.services import shard_name
from spoolproof.ports.webhooks import Endpoint, EndpointState, Webhooks
from spoolproof.telemetry.metrics import Measure
from spoolproof.webhooks import endpoints
from spoolproof.webhooks.delivery import Delivery
from spoolproof.webhooks.directory import Directory
from spoolproof.webhooks.events import ATTEMPTS
from spoolproof.webhooks.guard import Rules
from spoolproof.webhooks.relay import WebhookRelay
from spoolproof.webhooks.settings import WebhookSettings
from spoolproof.webhooks.transport import check_installed

_ISSUES_SHOWN = 20


def rules_of(settings: WebhookSettings) -> Rules:
    """Return what the settings allow."""
    return Rules.of(settings.allow_private, settings.ports)


class WebhooksPart(Part):
    """Ships the webhooks of the shards this process holds."""

    def __init__(self, of: Context) -> None:
        self._of = of
        self._publisher = of.the(Publisher)
        self.webhooks = of.store.port(Webhooks)
        self.rules = rules_of(of.settings.of(WebhookSettings))
        self.directory = Directory(self.webhooks, clock=of.clock)
        self._shards: Holding | None = None
        self._delivery = Delivery(
            *(self.webhooks, self.directory, of.the(Registry), self.rules),
            may_send=self._may_send,
            clock=of.clock,
            random=of.random,
            spawn=of.spawn,
        )

    def _may_send(self, token: object) -> bool:
        row = cast(OutboxRow, token)  # what the relay passes
        return self._shards is not None and self._shards.fence_for(shard_name(row.ref.shard)) is not None

    def holdings(self) -> Sequence[Holding]:
        """Return the lease on each shard of the service's webhooks."""
        own = self._of.store.services.own
        names = [shard_name(shard) for shard in own.webhooks]
        self._shards = Holding(own.webhook_lease_kind, names, self._of.clock, self._of.fence_seconds)
        return (self._shards,)

    async def restore(self) -> None:
        """Read the endpoints. Raises MissingExtra if there are any and nothing could be sent to them."""
        await self.directory.look()
        if self.directory.endpoints:
            check_installed()

    def loops(self) -> Sequence[Loop]:
        """Return the relay."""
        (shards,) = (self._shards,) if self._shards is not None else self.holdings()
        relay = WebhookRelay(
            *(self._of.store, self._delivery, self.directory, shards), clock=self._of.clock, ids=self._of.ids
        )
        self._publisher.bells.append(relay.notify)
        return (relay,)

    def added(self) -> None:
        """Send to a new endpoint at once; what the store does not take from now on waits for it, and is not missed."""
        self.directory.stir()
        if self._publisher.beside is not None:
            self._publisher.beside.has_webhooks = True

    async def begin_drain(self) -> None:
        """Send nothing more."""
        self._delivery.drain()

    def report(self) -> Report:
        """Tell which endpoints get nothing, and why."""
        issues = [issue for one in self.directory.endpoints.values() if (issue := self._issue_of(one))]
        if len(issues) > _ISSUES_SHOWN:
            issues[_ISSUES_SHOWN:] = [f"webhooks: {len(issues) - _ISSUES_SHOWN} endpoints more; spoolproof webhook ls"]
        return Report(is_fenced=self._shards is not None and self._shards.is_fenced, issues=tuple(issues))

    def _issue_of(self, endpoint: Endpoint) -> str:
        name = endpoint.name
        if endpoint.state is EndpointState.DISABLED:
            return f"webhooks: endpoint {name} is disabled ({endpoint.note}); it gets no events"
        if endpoint.state is EndpointState.PAUSED:
            return f"webhooks: endpoint {name} is paused ({endpoint.note or 'no reason given'}); its events wait"
        if name in self.directory.faults:
            return (
                f"webhooks: endpoint {name} has no secret to sign with: {self.directory.faults[name]}; its events wait"
            )
        if endpoint.failing_since is not None:
            return f"webhooks: endpoint {name} fails since {endpoint.failing_since:%Y-%m-%d %H:%M:%SZ}: {endpoint.note}"
        return ""

    def measures(self) -> Iterable[Measure]:
        """Return how requests ended."""
        return [(ATTEMPTS, labels, count) for labels, count in list(self._delivery.attempts.items())]


class WebhooksFacet(Facet):
    """`service.webhooks`: where events go as HTTP requests. Other processes hear of a change within 5 s. All raise
    NotFound in a process without the role `relay`, and StoreUnavailable."""

    async def add(self, name: str, url: str, types: Sequence[str], *, secret: str | None = None) -> Endpoint:
        """Send every event of these types (wire names, or `*`) that commits from now on to a URL.

        secret: `env:NAME`, `file:PATH` or `whsec_…`; a new one if None, in `secrets` of what is returned. Raises
        InvalidEndpoint, BlockedAddress, MissingExtra, Conflict for a name that is taken.
        """
        check_installed()
        added = await endpoints.add(self._webhooks, name, url, types, secret, self._part.rules)
        self._part.added()
        return added

    async def all(self) -> Sequence[Endpoint]:
        """Return every endpoint, sorted by name, with its secrets."""
        return await self._webhooks.all()

    async def pause(self, name: str, reason: str = "") -> None:
        """Send an endpoint nothing; its events wait. Raises NotFound."""
        await endpoints.pause(self._webhooks, name, reason)
        self._part.directory.stir()

    async def resume(self, name: str) -> None:
        """Send it what waits and what comes, whether it was paused or disabled. Raises NotFound."""
        await endpoints.resume(self._webhooks, name)
        self._part.directory.stir()

    async def rotate(self, name: str, secret: str | None = None, *, ends: bool = False) -> str:
        """Sign with a new secret, which is returned, and with the one before it until `rotate(name, ends=True)`.

        Raises NotFound, InvalidEndpoint.
        """
        newest = await endpoints.rotate(self._webhooks, name, secret, ends=ends)
        self._part.directory.stir()
        return newest

    async def remove(self, name: str) -> None:
        """Forget an endpoint; what waits for it becomes dead letters. Raises NotFound."""
        await endpoints.remove(self._webhooks, name)
        self._part.directory.stir()

    @property
    def _part(self) -> WebhooksPart:
        return self.host.part(WebhooksPart)

    @property
    def _webhooks(self) -> Webhooks:
        return self._part.webhooks


WEBHOOKS = Entry(WebhooksPart, WebhooksFacet)
