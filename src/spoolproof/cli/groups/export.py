"""`spoolproof export`: files for the monitoring you have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spoolproof.alerts.settings import AlertSettings, rules_of
from spoolproof.cli import exports
from spoolproof.cli.exits import Refused
from spoolproof.cli.group import Group
from spoolproof.cli.output import say
from spoolproof.settings import load_settings

Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="[default: standard output]")]


def prometheus(out: Out = None) -> None:
    """Write the alerts as rules for Prometheus, with the numbers of your settings."""
    _write(exports.rules_file(rules_of(load_settings().of(AlertSettings))), out)


def grafana(out: Out = None) -> None:
    """Write a dashboard for Grafana."""
    _write(exports.dashboard(), out)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        say(text.rstrip("\n"))
        return
    try:
        out.write_text(text)
    except OSError as error:
        raise Refused(f"--out {out}: {error.strerror}", "name a file in a directory that is there and yours") from error
    say(f"written to {out}")


GROUP = Group("export", {"prometheus": prometheus, "grafana": grafana}, "Files for the monitoring you have.")
