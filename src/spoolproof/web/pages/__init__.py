"""Every page and action of the dashboard, in the order of the navigation: the one list. A new part adds a line."""

from __future__ import annotations

from spoolproof.web.page import Action, Page
from spoolproof.web.pages import (
    alerts,
    batches,
    dead_letters,
    flow,
    overview,
    protection,
    reviews,
    sagas,
    system,
)

MODULES = (overview, alerts, flow, batches, reviews, dead_letters, sagas, protection, system)
PAGES: tuple[Page, ...] = tuple(page for module in MODULES for page in module.PAGES)
ACTIONS: tuple[Action, ...] = tuple(action for module in MODULES for action in getattr(module, "ACTIONS", ()))
