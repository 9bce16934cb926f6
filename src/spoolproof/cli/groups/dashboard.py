"""`spoolproof dashboard`: pages over the store of the settings, for whoever watches it and acts on it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from spoolproof.cli.exits import Refused
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson, actor_or_user
from spoolproof.cli.output import complain, emit, say
from spoolproof.cli.store import opened
from spoolproof.cli.target import load_service
from spoolproof.clock import SystemClock
from spoolproof.errors import MissingExtra, SchemaOutdated
from spoolproof.service import Service
from spoolproof.settings import Settings, load_settings
from spoolproof.telemetry.events import emit as tell
from spoolproof.telemetry.logging import log_to_stderr
from spoolproof.telemetry.settings import early_log_settings
from spoolproof.web.settings import DashboardSettings

if TYPE_CHECKING:
    import uvicorn

    from spoolproof.web.access import Access

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def dashboard(
    host: Annotated[str | None, typer.Option("--host", help="Where to listen. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="[default: 9400]; 0: any.")] = None,
    service: Annotated[
        str | None, typer.Option("--service", help="MODULE:SERVICE whose code says what decisions do.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the dashboard of everything in the store, until Ctrl-C. Without a password: this machine alone, by a URL."""
    try:
        import uvicorn  # noqa: F401

        import spoolproof.web.site  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "starlette", "web") from error
    log_to_stderr(early_log_settings(), "WARNING")
    loaded = None if service is None else load_service(service)
    settings = load_settings() if loaded is None else loaded.settings
    own = settings.of(DashboardSettings)
    asyncio.run(_serve(settings, loaded, host or own.host, own.port if port is None else port, as_json))


async def _serve(settings: Settings, service: Service | None, host: str, port: int, as_json: bool) -> None:
    import uvicorn

    from spoolproof.web.access import Login, basic_of
    from spoolproof.web.events import DashboardListening
    from spoolproof.web.site import Dashboard
    from spoolproof.web.source import source_alone

    clock, own = SystemClock(), settings.of(DashboardSettings)
    access: Access | None = basic_of(own, clock)
    login = None
    if access is None:
        if host not in _LOOPBACK:
            raise Refused(
                f"--host {host}: others could reach it, and nobody would have to say who they are",
                "set SPOOLPROOF_DASHBOARD_PASSWORD, or listen on 127.0.0.1",
            )
        access = login = Login(actor_or_user(""), hosts=own.hosts, clock=clock)
    async with opened(settings) as store:
        found = await store.migrations.found()
        if found != store.migrations.needed:
            raise SchemaOutdated(found, store.migrations.needed, store.name)
        server: uvicorn.Server | None = None
        is_ending: Callable[[], bool] = lambda: server is not None and server.should_exit  # noqa: E731
        source = source_alone(settings, store, service, clock=clock, is_ending=is_ending)
        app = Dashboard(lambda: source, access, clock)
        listener = _listener(host, port)
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        shown = url if login is None else f"{url}/login?token={login.token()}"
        config = uvicorn.Config(app, log_config=None, lifespan="off", access_log=False, server_header=False)
        server = uvicorn.Server(config)
        _announce(url, shown, is_once=login is not None, as_json=as_json)
        tell(DashboardListening(url=url))
        await server.serve(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises Refused for a port that is taken."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Refused(f"{host}:{port}: {error.strerror}", "name another with --port, or 0 for any") from error


def _announce(url: str, shown: str, *, is_once: bool, as_json: bool) -> None:
    if as_json:
        emit("dashboard", {"url": url, "login_url": shown if is_once else None}, whole=True)
        return
    say(shown)
    complain("open it within 10 minutes; it is good once" if is_once else "sign in with your name and a password")


GROUP = Group("dashboard", {"": dashboard}, place=2)
