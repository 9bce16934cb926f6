"""What a page and an action are: a line in a list, from which routes, navigation and permissions are made.

A page reads a document and names a template. An action is a plain form; it says which permission it needs, what it is
done to, and what it does. Neither knows HTTP, roles or the audit trail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from spoolproof.errors import InvalidMessage
from spoolproof.web.people import Principal
from spoolproof.web.source import Source

FIELDS_MAX = 2000
PAGE_ROWS = 50
REASON_MAX = 500


class Form:
    """Fields of a form or a query, each perhaps several times."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    @classmethod
    def parsed(cls, text: str) -> Form:
        """Return the fields of a URL-encoded text. Raises ValueError for too many."""
        return cls(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX))

    def one(self, name: str, default: str = "") -> str:
        """Return the last value of a field without blanks around it."""
        return next((value.strip() for key, value in reversed(self._fields) if key == name), default)

    def text(self, name: str) -> str:
        """Return the last value of a field as it is, with the line ends of a text area put right."""
        found = next((value for key, value in reversed(self._fields) if key == name), "")
        return found.replace("\r\n", "\n")

    def all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return [value for key, value in self._fields if key == name]

    def given(self, *names: str) -> dict[str, str]:
        """Return those of these fields that are not empty."""
        return {name: value for name in names if (value := self.one(name))}

    def whole(self, name: str, default: int, most: int) -> int:
        """Return a number from 0 to `most`. Raises InvalidMessage."""
        text = self.one(name)
        if not text:
            return default
        if not text.isdigit() or int(text) > most:
            raise InvalidMessage(name, text, f"a number from 0 to {most}")
        return int(text)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a page or an action is asked. params: of the path; query: of a page; form: of an action."""

    source: Source
    principal: Principal
    params: Mapping[str, str]
    form: Form

    @property
    def id(self) -> str:
        """The `{id}` of the path."""
        return self.params["id"]

    @property
    def reason(self) -> str:
        """Why somebody acts."""
        return self.form.one("reason")


Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Page:
    """path: below the dashboard. title: in the navigation and above the page. read: returns its document. template: in
    `templates/`. key: of the shortcut `g key`. section: of the navigation; "" for a page that only others lead to.
    under: the path of the page it belongs to. topics: what must change for it to be worth a new look."""

    path: str
    title: str
    read: Callable[[Ask], Awaitable[Document]]
    template: str
    permission: str = "view"
    key: str = ""
    section: str = ""
    under: str = ""
    topics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """What an action came to, in words. to: the path that shows it; "" for where it was asked."""

    text: str
    to: str = ""


@dataclass(frozen=True, kw_only=True)
class Action:
    """path: below the dashboard, posted to. name: in the audit trail. permission: needed for it. run: does it. target:
    what it is done to, for the audit trail; default the id of the path."""

    path: str
    name: str
    permission: str
    run: Callable[[Ask], Awaitable[Done]]
    needs_reason: bool = True
    target: Callable[[Ask], str] = lambda ask: ask.params.get("id", "")

    def check(self, ask: Ask) -> None:
        """Raise InvalidMessage unless it is said why, where that is needed."""
        if self.needs_reason and not ask.reason:
            raise InvalidMessage("reason", "", "say why; it is kept in the audit trail")
        if len(ask.reason) > REASON_MAX:
            raise InvalidMessage("reason", f"{len(ask.reason)} characters", f"at most {REASON_MAX}")
