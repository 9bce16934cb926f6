"""Every setting has a default inside its range, and what is no number is refused where it is given."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spoolproof.errors import PolicyConfigError
from spoolproof.policies import Breaker, Retry, Timeout
from spoolproof.policies.parts.ranges import SETTINGS, Setting, faults_of, name_faults, number_of

NUMBERS = [setting for setting in SETTINGS.values() if setting.kind is not str]


def _name(setting: Setting) -> str:
    return setting.name


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=_name)
def test_a_default_is_legal_and_has_a_reason(setting: Setting) -> None:
    """A default nobody may write down could not be restored by hand."""
    assert setting.why
    assert setting.default is None or setting.fault(setting.default) is None


@pytest.mark.parametrize("setting", NUMBERS, ids=_name)
def test_both_ends_of_a_range_are_legal_and_no_step_beyond(setting: Setting) -> None:
    ends: list[Any] = [setting.kind(setting.low), setting.kind(setting.high)]
    step = 1 if setting.kind is int else 1e-9

    assert [None, None] == [setting.fault(end) for end in ends]
    assert setting.fault(ends[0] - step) is not None
    assert setting.fault(ends[1] + max(step, ends[1] * 1e-9)) is not None


@pytest.mark.parametrize("setting", NUMBERS, ids=_name)
@pytest.mark.parametrize("value", [True, False, math.nan, math.inf, -math.inf, -1, "5", None, [5], 5j])
def test_what_is_no_legal_number_is_a_fault(setting: Setting, value: object) -> None:
    """True is 1 to Python, and NaN is neither above nor below anything: both would pass a careless comparison."""
    fault = setting.fault(value)

    assert f"{setting.name}={value!r}: {setting.legal}" == fault


def test_a_whole_number_is_not_given_as_a_fraction() -> None:
    assert ["attempts=3.0: a whole number from 1 to 10"] == faults_of({"attempts": 3.0})


def test_a_number_of_seconds_may_be_whole() -> None:
    assert [] == faults_of({"timeout_seconds": 5, "mode": "observe"})


def test_a_range_is_said_in_plain_digits() -> None:
    """1e+06 is not how the person who has to correct it writes a million."""
    assert "rate=0: a number from 0.000001 to 1,000,000" == SETTINGS["rate"].fault(0)


def test_a_text_is_one_of_its_choices() -> None:
    assert ["mode='On': one of enforce, observe, off"] == faults_of({"mode": "On"})


def test_all_faults_are_found_at_once() -> None:
    """One restart for each would make an outage of a typing error."""
    given = {"attempts": 0, "timeout_seconds": math.nan, "open_factor": True, "atempts": 3, "delay_seconds": 1}

    expected = [
        "attempts=0: a whole number from 1 to 10",
        "timeout_seconds=nan: a number from 0.001 to 3,600",
        "open_factor=True: a number from 1 to 10",
        "atempts=3: no such setting",
    ]
    assert expected == faults_of(given)


@pytest.mark.parametrize(
    "make", [lambda: Retry(0), lambda: Timeout(math.inf), lambda: Breaker(probes_max=True)], ids=["low", "inf", "bool"]
)
def test_a_part_refuses_a_bad_number_when_it_is_made(make: Any) -> None:
    with pytest.raises(PolicyConfigError) as raised:
        make()

    assert 1 == len(raised.value.faults)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("name", ["a", "0", "psp", "product-service", "a.b_c-d", "a" * 63])
def test_a_good_name_is_accepted(name: str) -> None:
    assert [] == name_faults(name)


@pytest.mark.parametrize("name", ["", "PSP", "-a", ".a", "a b", "a/b", "a\n", "é", "a" * 64, None, 5])
def test_a_bad_name_is_a_fault(name: object) -> None:
    """It becomes a metric label, a row in a store and a part of a variable's name."""
    assert [f"name={name!r}"] == [fault.split(":")[0] for fault in name_faults(name)]


@pytest.mark.parametrize(
    ("text", "kind", "expected"), [("5", int, 5), (" 0.5 ", float, 0.5), ("1e1", float, 10.0), ("5", float, 5.0)]
)
def test_a_plain_number_is_read(text: str, kind: Any, expected: float) -> None:
    assert expected == number_of(text, kind)


@pytest.mark.parametrize("text", ["", "1_000", "٣", "30s", "5,0", "0x10", "9" * 5000])
def test_a_text_that_is_no_plain_number_is_refused(text: str) -> None:
    """Python reads the first ones as numbers, and refuses the last with an error that names no setting."""
    with pytest.raises(ValueError):  # noqa: PT011  # the caller's message names setting and range
        number_of(text, float if "." in text else int)
