"""`spoolproof run`: the process of a service, in order, from its settings to its exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from spoolproof.cli.exits import FAILED, Refused, Usage
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit
from spoolproof.cli.target import load_service
from spoolproof.errors import NotStarted
from spoolproof.failpoints import InjectedFault
from spoolproof.health.settings import HealthSettings
from spoolproof.health.thread import Address
from spoolproof.lifecycle.events import FailpointRaised, ServiceEnded
from spoolproof.lifecycle.shutdown import Ending, StopSignals, run_until_stopped
from spoolproof.parts import ROLES
from spoolproof.settings import Settings
from spoolproof.telemetry.events import emit as tell
from spoolproof.telemetry.logging import log_to_stderr
from spoolproof.telemetry.settings import LogSettings, early_log_settings
from spoolproof.wiring import forgetful

if TYPE_CHECKING:
    from spoolproof.service import Service

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def run(
    service: Annotated[str, typer.Argument(metavar="MODULE:SERVICE", help="As in shop:service.")],
    only: Annotated[str, typer.Option("--only", help=f"Roles, of {','.join(ROLES)}.")] = ",".join(ROLES),
    allow_memory: Annotated[
        bool, typer.Option("--allow-memory", help="Accept memory://, which forgets everything at the end.")
    ] = False,
    health_port: Annotated[
        int | None, typer.Option("--health-port", min=0, max=65535, help="Where to answer probes; 0: any free port.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", help=f"{', '.join(LEVELS)}; default: SPOOLPROOF_LOG_LEVEL.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a service until SIGTERM or Ctrl-C; then running handlers finish. A second one skips the wait."""
    if log_level is not None and log_level.upper() not in LEVELS:
        raise Usage(f"--log-level {log_level!r} is no level", f"write one of {', '.join(LEVELS)}")
    roles = roles_in(only)
    lines = log_to_stderr(early_log_settings(), log_level)  # what the user's modules log at import belongs in it
    loaded = load_service(service)
    lines.use(loaded.settings.of(LogSettings), log_level)
    lines.service, lines.process = loaded.name, lambda: _process_id(loaded)
    refuse_memory(loaded.settings, is_allowed=allow_memory)
    probes = loaded.settings.of(HealthSettings)
    port = probes.port if health_port is None else health_port
    running = Running(loaded, roles, Address(probes.host, port))
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        ending = runner.run(_until_stopped(running, loaded.settings.drain_seconds))
    tell(ServiceEnded(service=loaded.name, ending=ending.value))
    if as_json:
        emit("run", {"service": loaded.name, "ending": ending})
    if ending is Ending.FATAL:
        raise typer.Exit(FAILED)


def _process_id(service: Service) -> str | None:
    try:
        return str(service.runtime.process_id)
    except NotStarted:
        return None


def roles_in(text: str) -> tuple[str, ...]:
    """Return the roles of a comma-separated list. Raises Usage."""
    roles = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise Usage(f"--only {text!r} names no role this release knows", f"write some of {','.join(ROLES)}")
    return roles


def refuse_memory(settings: Settings, *, is_allowed: bool) -> None:
    """Raises Refused for a store or broker that forgets what it accepted, unless that is allowed."""
    if (named := forgetful(settings)) and not is_allowed:
        raise Refused(
            f"{' and '.join(named)} forgets everything when this process ends",
            "unset it for the default on disk, or add --allow-memory",
        )


class Running:
    """A service as the process that `run_until_stopped` starts and ends."""

    def __init__(self, service: Service, roles: Sequence[str], health: Address) -> None:
        self._service = service
        self._roles = roles
        self._health = health

    async def start(self) -> None:
        """Start the service with its health endpoint."""
        await self._service.start(only=self._roles, health=self._health)

    def fatal(self) -> asyncio.Future[BaseException]:
        """Return what is set when a task of the service met what nothing expects."""
        fatal = self._service.runtime.supervisor.fatal
        if fatal is None:
            raise AssertionError("a started service has its future of the fatal error")
        return fatal

    async def drain(self) -> None:
        """Finish what runs."""
        await self._service.drain()

    async def stop(self) -> None:
        """Close everything."""
        await self._service.stop()


async def _until_stopped(running: Running, drain_seconds: float) -> Ending:
    stop = StopSignals(drain_seconds=drain_seconds)
    with stop.installed():
        try:
            return await run_until_stopped(running, stop)
        except InjectedFault as fault:
            tell(FailpointRaised(failpoint=str(fault)))
            return Ending.FATAL


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop where it is installed (extra `speed`), else None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


GROUP = Group("run", {"": run}, place=1)
