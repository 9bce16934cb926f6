"""Who looks at the dashboard, and what each may do: the one table of roles, asked in one place.

A page or an action names a permission. What is not in the table nobody may do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody is here for."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    REVIEWER = "reviewer"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who was let in. name: of the audit trail, and of claims; 1 to 100 characters."""

    name: str
    role: Role

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > 100 or not self.name.isprintable():
            raise ValueError(f"Principal({self.name[:40]!r}): a name has 1 to 100 characters, all of them printable")

    def may(self, permission: str) -> bool:
        """Tell whether this person may do something."""
        return self.role in PERMISSIONS.get(permission, ())


_ALL = tuple(Role)
_OPERATE = (Role.OPERATOR, Role.ADMIN)
PERMISSIONS: Mapping[str, tuple[Role, ...]] = {
    "view": _ALL,
    "payload:read": (Role.OPERATOR, Role.REVIEWER, Role.ADMIN),
    "review:decide": (Role.REVIEWER, Role.ADMIN),
    "dead-letter:replay": _OPERATE,
    "dead-letter:discard": _OPERATE,
    "dead-letter:edit": (Role.ADMIN,),
    "breaker:act": _OPERATE,
    "saga:act": _OPERATE,
    "alert:act": _OPERATE,
    "batch:act": _OPERATE,
    "schedule:act": _OPERATE,
    "webhook:act": _OPERATE,
    "audit:read": (Role.ADMIN, Role.OPERATOR),
    "settings:read": (Role.ADMIN, Role.OPERATOR),
}
"""Who may do what. Viewers see no payload; what changes a message's content is for admins alone."""


def who_may(permission: str) -> str:
    """Return the roles that have a permission, in words."""
    return " or ".join(PERMISSIONS.get(permission, ())) or "nobody"
