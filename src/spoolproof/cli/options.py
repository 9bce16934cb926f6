"""Options that several commands share."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.", show_default=False)]
Actor = Annotated[str, typer.Option("--actor", help="Who; kept in the audit trail. [default: the user]")]


def actor_or_user(actor: str) -> str:
    """Return who acts: the one named, else the user of the operating system."""
    if actor:
        return actor
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
