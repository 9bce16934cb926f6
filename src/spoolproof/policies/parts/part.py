"""What every part of a policy is: a declaration, checked when it is made.

A part holds only what it was given. Defaults, presets, files and the environment are laid under and over that when the
policy is built (`config`), and the machines that keep counts are made from the result. One declaration may therefore
serve several policies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import CellType, FunctionType, MethodType
from typing import Any, ClassVar, ParamSpec, TypeVar

from spoolproof.errors import PolicyConfigError
from spoolproof.policies.parts.ranges import SETTINGS, faults_of

P = ParamSpec("P")
R = TypeVar("R")


class Part:
    """One part of a policy. kind: its name in messages and findings. settings: the names of those it takes: its fields,
    where it is a dataclass. given: those it was made with."""

    kind: ClassVar[str] = ""
    settings: ClassVar[tuple[str, ...]] = ()
    protect: ClassVar[Callable[[Part, Callable[..., Any]], Callable[..., Any]]]
    """Puts a policy of one part around a function. A policy is made of parts, so it says how when it is imported."""

    def __init_subclass__(cls) -> None:
        if "settings" not in vars(cls):
            cls.settings = tuple(name for name in cls.__annotations__ if name in SETTINGS)

    def __post_init__(self) -> None:
        Part.__init__(self, {name: getattr(self, name) for name in self.settings}, self._faults())

    def _faults(self) -> list[str]:
        """Return what is wrong with a dataclass besides its settings."""
        return []

    def __init__(self, given: Mapping[str, object], faults: Iterable[str] = ()) -> None:
        """given: setting name to value; None values mean "not given". Raises PolicyConfigError with every fault."""
        self.given = {name: value for name, value in given.items() if value is not None}
        found = [*faults, *faults_of(self.given)]
        if found:
            raise PolicyConfigError(found, policy=self.kind)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Protect a function with this part alone: `@Timeout(5)`."""
        return Part.protect(self, function)

    def __repr__(self) -> str:
        settings: dict[str, Any] = self.given
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"


def alike(one: object, other: object, _seen: frozenset[tuple[int, int]] = frozenset()) -> bool:
    """Whether two declarations mean the same: equal settings, and functions of the same code that hold the same.

    The same line run again makes another function, which does the same unless it holds something else: variables of a
    factory, arguments of a partial, the object of a bound method. Classes count by name, but for those of a function.
    """
    if one is other or (id(one), id(other)) in _seen:  # a function may hold itself
        return True
    if type(one) is not type(other):
        return False
    seen = _seen | {(id(one), id(other))}
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key], seen) for key in one)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(alike(*pair, seen) for pair in zip(one, other, strict=True))
    if isinstance(one, type) and isinstance(other, type):
        is_found_by_name = "<locals>" not in one.__qualname__
        return is_found_by_name and (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
    what, other_what = _held(one), _held(other)
    if what is None or other_what is None:
        try:
            return bool(one == other)
        except Exception:  # another's code; what cannot be compared is not known to be the same
            return False
    return alike(what, other_what, seen)


def _held(value: object) -> tuple[object, ...] | None:
    """Return what a function or a declaration is made of; None for anything else."""
    if isinstance(value, FunctionType):
        cells = [_content(cell) for cell in value.__closure__ or ()]
        return value.__module__, value.__qualname__, value.__code__, value.__defaults__, value.__kwdefaults__, cells
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if isinstance(value, BaseException):
        return (value.args,)
    if isinstance(value, Part):
        return ({name: held for name, held in vars(value).items() if name[0] != "_"},)
    if is_dataclass(value) and not isinstance(value, type):
        return tuple(getattr(value, one.name) for one in fields(value))
    return None


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None
