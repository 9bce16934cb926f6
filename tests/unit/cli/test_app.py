"""The tree of commands and what a wrong line gets."""

from __future__ import annotations

import json

import pytest

from spoolproof.cli.app import command_of, invoke
from spoolproof.cli.output import plain


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("dlq replay ID --reason x", "dlq.replay"),
        ("dlqs list", "dlq.ls"),
        ("--json outboxes status", "outbox.status"),
        ("version", "version"),
        ("run shop:service", "run"),
        ("dlq", "dlq"),
        ("dlq frobnicate", "dlq"),
        ("frobnicate", "usage"),
        ("", "usage"),
    ],
)
def test_a_document_names_its_command(line: str, command: str) -> None:
    """Also when the line is wrong: a script reads `schema` first."""
    assert command == command_of(line.split())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("verion", "Did you mean 'version'?"),
        ("outbx status", "Did you mean 'outbox'?"),
        ("dlq repaly x", "Did you mean 'replay'?"),
        ("dlq replay", "--reason"),
        ("dlq replay ID", "--reason"),
        ("dlq discard ID", "--reason"),
        ("dlq show", "ID"),
        ("dlq ls --state lost", "'lost'"),
        ("dlq ls --limit 0", "--limit"),
        ("run", "MODULE:SERVICE"),
        ("run shop", "'shop' does not name a service"),
        ("run nowhere:service", "there is no module 'nowhere'"),
        ("run json:service", "module 'json' has no 'service'"),
        ("run json:dumps", "'json:dumps' is of type function, not a Service"),
        ("run json:dumps --only relay,painter", "'relay,painter'"),
        ("run json:dumps --only ,", "names no role"),
        ("run json:dumps --log-level LOUD", "'LOUD' is no level"),
        ("run json:dumps --health-port 70000", "--health-port"),
        ("migrate --sql --check", "exclude each other"),
        ("demo --orders 0", "--orders"),
        ("version --frobnicate", "--frobnicate"),
    ],
)
def test_a_wrong_line_ends_with_2_and_says_what_is_wrong(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a person on standard error, for a machine as one document on standard output."""
    assert 2 == invoke([*line.split(), "--json"])

    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert {"code", "message", "hint"} == set(document["error"])
    assert said in document["error"]["message"]
    assert said in shown.err
    assert document["schema"].startswith("spoolproof.")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, "-"),
        ("fine\n\tfine", "fine\n\tfine"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("bell\x07", "bell\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("é→", "é→"),
    ],
)
def test_a_terminal_obeys_no_stranger(text: object, shown: str) -> None:
    """Errors and bodies come from whoever can publish; an escape sequence could rewrite what the operator sees."""
    assert shown == plain(text)
