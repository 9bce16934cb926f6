"""What every part of a policy is: a declaration, checked when it is made.

A part holds only what it was given. Defaults, presets, files and the environment are laid under and over that when the
policy is built (`config`), and the machines that keep counts are made from the result. One declaration may therefore
serve several policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, ParamSpec, TypeVar

from spoolproof.errors import PolicyConfigError
from spoolproof.policies.ranges import faults_of

P = ParamSpec("P")
R = TypeVar("R")


class Part:
    """One part of a policy. kind: its name in messages and findings. given: the settings it was made with."""

    kind: ClassVar[str] = ""

    def __init__(self, given: Mapping[str, object], faults: Iterable[str] = ()) -> None:
        """given: setting name to value; None values mean "not given". Raises PolicyConfigError with every fault."""
        self.given = {name: value for name, value in given.items() if value is not None}
        found = [*faults, *faults_of(self.given)]
        if found:
            raise PolicyConfigError(found, policy=self.kind)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Protect a function with this part alone: `@Timeout(5)`."""
        # a policy is made of parts; only this shorthand goes the other way
        from spoolproof.policies.policy import Policy

        return Policy.of_part(self, function)(function)

    def __repr__(self) -> str:
        settings: dict[str, Any] = self.given
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"
