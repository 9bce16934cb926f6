"""The command tree, and the one place where a command's error becomes text, a document and an exit code.

Commands import what they need when they run: `--help` loads no driver. A noun is accepted in singular and plural, and
`list` for `ls`; help shows one form.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from spoolproof.cli.exits import FAILED, FINE, USAGE, Failure, failure_of
from spoolproof.cli.group import found, noun, verb
from spoolproof.cli.output import complain, emit, plain

_INTERRUPTED = 130  #: 128 + SIGINT, as shells have it


class Nouns(TyperGroup):
    """The nouns, by their other names too."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a noun by one of its names."""
        return super().get_command(ctx, noun(cmd_name))


class Verbs(TyperGroup):
    """The verbs of a noun, by their other names too."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb by one of its names."""
        return super().get_command(ctx, verb(cmd_name))


def build() -> typer.Typer:
    """Return the whole command tree."""
    app = typer.Typer(
        name="spoolproof",
        cls=Nouns,
        help="Run and operate services that lose nothing.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    for group in found():
        if group.is_command:
            app.command(group.name)(group.verbs[""])
            continue
        verbs = typer.Typer(cls=Verbs, help=group.help, no_args_is_help=True)
        for name, command in group.verbs.items():
            verbs.command(name)(command)
        app.add_typer(verbs, name=group.name)
    return app


def invoke(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    try:
        ended: object = build()(list(arguments), standalone_mode=False, prog_name="spoolproof")
        return ended if isinstance(ended, int) else FINE
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has gone; the interpreter would complain about it at exit
        return FAILED
    except Exception as error:
        failure = _failure_of(error)
        if failure is None:
            return USAGE
        _report(arguments, failure)
        return failure.exit_code


def command_of(arguments: Sequence[str]) -> str:
    """Return what a command line calls, as `dlq.replay`; as far as it is known when it is wrong."""
    words = [word for word in arguments if not word.startswith("-")]
    group = next((one for one in found() if words and one.answers_to(words[0])), None)
    if group is None:
        return "usage"
    called = verb(words[1]) if len(words) > 1 else ""
    return f"{group.name}.{called}" if called in group.verbs and called else group.name


def _failure_of(error: Exception) -> Failure | None:
    """Return what to report; None when help was printed in the error's place."""
    if type(error).__name__ == "NoArgsIsHelpError":
        complain(error.format_message())  # type: ignore[attr-defined]
        return None
    explain = getattr(error, "format_message", None)  # the parser's own errors; its classes move between releases
    if explain is None:
        return failure_of(error)
    context = getattr(error, "ctx", None)
    path = "spoolproof" if context is None else context.command_path
    return Failure(getattr(error, "exit_code", USAGE), "usage", explain(), f"{path} --help")


def _report(arguments: Sequence[str], failure: Failure) -> None:
    if "--json" in arguments:
        emit(command_of(arguments), {"error": failure.document()})
    complain(plain(f"error: {failure.message}" + (f"\nhint: {failure.hint}" if failure.hint else "")))
