"""The rules of deleting by age: what they name must be there."""

from __future__ import annotations

import pytest

from spoolproof.ports.retention import Rule
from spoolproof.settings import Settings
from spoolproof.stores.retention import RULES


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.table)
def test_a_rule_that_names_a_setting_names_one_there_is(rule: Rule) -> None:
    """Else the first turn of the pruner would be the first to know."""
    seconds = Settings(_env_file=None).named(rule.seconds) if isinstance(rule.seconds, str) else rule.seconds

    assert seconds >= 86_400
