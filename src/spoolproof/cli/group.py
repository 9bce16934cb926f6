"""A noun of the command line: exported by its file as `GROUP`, and all the tree knows of it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from spoolproof.cli import groups

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Group:
    """name: singular. help: one sentence; that of a command without verbs is its docstring. verbs: by name, or one
    under "" for a noun that is a command itself. also: further names it is known by. place: in the help, from the top.
    """

    name: str
    verbs: Mapping[str, Command]
    help: str = ""
    also: tuple[str, ...] = ()
    place: int = 50

    @property
    def is_command(self) -> bool:
        """Whether the noun itself is what one calls."""
        return "" in self.verbs

    def answers_to(self, word: str) -> bool:
        """Whether a word means this noun: its name, its plural or one of its other names."""
        return word in (self.name, f"{self.name}s", *self.also)


@cache
def found() -> tuple[Group, ...]:
    """Return every noun there is, in the order of the help."""
    modules = [
        importlib.import_module(f"{groups.__name__}.{one.name}") for one in pkgutil.iter_modules(groups.__path__)
    ]
    return tuple(sorted((module.GROUP for module in modules), key=lambda group: (group.place, group.name)))


def noun(word: str) -> str:
    """Return the name of what a word means; the word itself if it means nothing."""
    return next((group.name for group in found() if group.answers_to(word)), word)


def verb(word: str) -> str:
    """Return the name a verb goes by."""
    return "ls" if word == "list" else word
