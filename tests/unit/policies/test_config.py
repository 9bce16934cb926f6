"""Where settings come from, which source wins, and that nothing given is passed over in silence."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import spoolproof
from spoolproof.policies import (
    Adaptive,
    Breaker,
    Bulkhead,
    Chaos,
    Consecutive,
    Fallback,
    Hedge,
    Rate,
    RateLimit,
    Retry,
    Slow,
    Timeout,
)
from spoolproof.policies.parts.ranges import SETTINGS
from spoolproof.policies.settings import config
from spoolproof.policies.settings.config import Resolved, Shadowed, Sources

PRESETS = {
    "delivery-service": ("rate", {"failure_rate": 0.4, "calls_min": 5, "open_seconds": 60}),
    "product-service": ("rate", {"failure_rate": 0.5, "calls_min": 10, "open_seconds": 30}),
    "database": ("rate", {"failure_rate": 0.6, "calls_min": 10, "open_seconds": 20}),
    "classic": ("consecutive", {"consecutive": 5, "open_seconds": 30}),
}
EXACT = {"open_factor": 1, "open_jitter": 0, "probe_successes": 1, "ramp_seconds": 0}


def loaded(environ: Mapping[str, str] | None = None, toml: Path | str | None = None) -> Sources:
    sources, faults = config.load(environ or {}, toml)
    assert [] == faults
    return sources


def resolved(
    *parts: Any, environ: Mapping[str, str] | None = None, toml: Path | None = None, preset: str | None = None
) -> Resolved:
    return config.resolve("psp", parts, loaded(environ, toml), preset=preset)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        file = tmp_path / "policies.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


# --- presets ---------------------------------------------------------------------------------------------------------


def test_the_presets_are_those_of_the_design() -> None:
    assert PRESETS.keys() == config.NOTHING.presets.keys()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_its_numbers_its_rule_and_an_exact_reset(preset: str) -> None:
    """Whoever names one has read the table, and the table says: this rule and no other."""
    rule, numbers = PRESETS[preset]

    found = resolved(Breaker(), preset=preset)

    expected = {**numbers, **EXACT} | ({"window_seconds": 30} if rule == "rate" else {})
    assert expected == {name: getattr(found.values, name) for name in expected}
    assert (rule, (), ()) == (found.rule, found.faults, found.shadowed)
    assert {f"preset {preset}"} == {found.origins[name] for name in expected}


def test_no_source_file_names_a_preset() -> None:
    """They are data: a name in code would make a special case of what a user's file may replace."""
    sources = Path(spoolproof.__file__).parent.joinpath("policies").glob("*.py")
    names = [name for name in PRESETS if name not in ("database", "classic")] + ['"database"', '"classic"']

    assert [] == [(path.name, name) for path in sources for name in names if name in path.read_text()]


def test_the_presets_are_read_from_inside_the_package() -> None:
    shipped = tomllib.loads(files("spoolproof.policies.settings").joinpath("presets.toml").read_text(encoding="utf-8"))

    assert shipped["presets"] == config.NOTHING.presets


def test_a_preset_may_be_chosen_by_file_and_by_variable(write: Any) -> None:
    file = write("[policies.psp]\npreset = 'database'\n")
    variable = {"SPOOLPROOF_POLICY_PSP_PRESET": " classic "}

    chosen = [
        resolved(Breaker(), preset="product-service").preset,
        resolved(Breaker(), preset="product-service", toml=file).preset,
        resolved(Breaker(), preset="product-service", toml=file, environ=variable).preset,
    ]

    assert ["product-service", "database", "classic"] == chosen


def test_a_users_row_replaces_a_preset_whole(write: Any) -> None:
    file = write("[presets.database]\nconsecutive = 2\n[presets.ours]\nattempts = 7\n")

    found = resolved(Breaker(), toml=file, preset="database")
    ours = resolved(Retry(), toml=file, preset="ours")

    assert ("consecutive", 2, 5.0) == (found.rule, found.values.consecutive, found.values.open_seconds)
    assert 7 == ours.values.attempts


def test_an_unknown_preset_is_a_fault_that_lists_the_known_ones() -> None:
    faults = resolved(Breaker(), preset="databse").faults

    assert ("preset='databse': one of classic, database, delivery-service, product-service",) == faults


# --- precedence ------------------------------------------------------------------------------------------------------


def test_each_source_wins_over_all_weaker_ones(write: Any) -> None:
    """The one who is nearest to the running process knows most; every step is named in origins."""
    file = write("[policies.psp]\nopen_seconds = 4\n")
    default = {"SPOOLPROOF_POLICY_DEFAULT_OPEN_SECONDS": "6"}
    own = {"SPOOLPROOF_POLICY_PSP_OPEN_SECONDS": "3"}
    code = Breaker(open_seconds=9)

    found = [
        resolved(Breaker()),
        resolved(Breaker(), environ=default),
        resolved(Breaker(), environ={"CB_RESET_TIMEOUT": "7000"}),
        resolved(Breaker(), environ=default, preset="database"),
        resolved(code, environ=default, preset="database"),
        resolved(code, environ=default, preset="database", toml=file),
        resolved(code, environ=default | own, preset="database", toml=file),
    ]

    expected = [
        (5.0, "built-in"),
        (6.0, "SPOOLPROOF_POLICY_DEFAULT_OPEN_SECONDS"),
        (7.0, "CB_RESET_TIMEOUT"),
        (20, "preset database"),
        (9, "code"),
        (4, "file"),
        (3.0, "SPOOLPROOF_POLICY_PSP_OPEN_SECONDS"),
    ]
    assert expected == [(one.values.open_seconds, one.origins["open_seconds"]) for one in found]


def test_what_is_hidden_is_recorded_with_what_hides_it() -> None:
    found = resolved(Breaker(open_seconds=9), environ={"CB_RESET_TIMEOUT": "7000"}, preset="database")

    expected = (
        Shadowed("open_seconds", "CB_RESET_TIMEOUT", "preset database"),
        Shadowed("open_seconds", "preset database", "code"),
    )
    assert expected == found.shadowed


def test_a_value_that_was_confirmed_is_not_hidden() -> None:
    assert () == resolved(Retry(5), environ={"SPOOLPROOF_POLICY_DEFAULT_ATTEMPTS": "5"}).shadowed


@pytest.mark.parametrize(
    ("hidden", "environ", "preset"),
    [
        ("CB_FAILURE_THRESHOLD", {"CB_FAILURE_THRESHOLD": "5"}, None),
        ("preset classic", {}, "classic"),
        ("SPOOLPROOF_POLICY_DEFAULT_CONSECUTIVE", {"SPOOLPROOF_POLICY_DEFAULT_CONSECUTIVE": "5"}, None),
    ],
)
def test_a_rule_in_code_hides_a_weaker_one_and_that_is_recorded(
    hidden: str, environ: dict[str, str], preset: str | None
) -> None:
    """An operator who set a threshold and sees no effect has to be told why."""
    found = resolved(Breaker(Rate(0.7)), environ=environ, preset=preset)

    assert ("rate", ()) == (found.rule, found.faults)
    assert (Shadowed("consecutive", hidden, "code"),) == found.shadowed


def test_a_rule_of_a_preset_hides_the_one_of_an_alias() -> None:
    found = resolved(Breaker(), environ={"CB_FAILURE_THRESHOLD": "5"}, preset="database")

    assert ("rate", Shadowed("consecutive", "CB_FAILURE_THRESHOLD", "preset database")) == (
        found.rule,
        found.shadowed[0],
    )


def test_a_preset_hides_numbers_of_the_rule_it_replaces() -> None:
    """`calls_min` alone says how many calls the default rule needs; `classic` has no rate to need them for."""
    found = resolved(Breaker(calls_min=7), preset="classic")

    assert ((Shadowed("calls_min", "code", "preset classic"),), ()) == (found.shadowed, found.faults)


# --- rules and windows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("breaker", "rule"),
    [
        (Breaker(), ("any", "rate", "consecutive")),
        (Breaker(open_seconds=3, calls_min=9), ("any", "rate", "consecutive")),
        (Breaker(Consecutive(4)), "consecutive"),
        (
            Breaker(Rate() & (Slow(0.5, slow_seconds=2) | Consecutive(3))),
            ("all", "rate", ("any", "slow", "consecutive")),
        ),
    ],
)
def test_a_rule_is_what_code_says_else_the_default(breaker: Breaker, rule: Any) -> None:
    assert (rule, ()) == (resolved(breaker).rule, resolved(breaker).faults)


def test_the_window_of_the_stronger_source_counts() -> None:
    """Otherwise an operator who sets 60 s is ignored without a word, because code counts calls."""
    seconds = {"SPOOLPROOF_POLICY_PSP_WINDOW_SECONDS": "60"}
    calls = {"SPOOLPROOF_POLICY_PSP_WINDOW_CALLS": "40"}

    by_seconds = resolved(Breaker(Rate(window_calls=50)), environ=seconds)
    by_calls = resolved(Breaker(Rate(window_seconds=50)), environ=calls)

    assert (60.0, None) == (by_seconds.values.window_seconds, by_seconds.values.window_calls)
    assert (Shadowed("window_calls", "code", "SPOOLPROOF_POLICY_PSP_WINDOW_SECONDS"),) == by_seconds.shadowed
    assert 40 == by_calls.values.window_calls
    assert (Shadowed("window_seconds", "code", "SPOOLPROOF_POLICY_PSP_WINDOW_CALLS"),) == by_calls.shadowed


def test_a_preset_keeps_its_window_under_a_default_of_calls() -> None:
    found = resolved(Breaker(), environ={"SPOOLPROOF_POLICY_DEFAULT_WINDOW_CALLS": "50"}, preset="database")

    assert (30, None) == (found.values.window_seconds, found.values.window_calls)


@pytest.mark.parametrize(
    "breaker", [Breaker(slow_rate=0.5), Breaker(Rate(), window_seconds=5, window_calls=5)], ids=["slow", "windows"]
)
def test_half_a_rule_or_two_windows_are_a_fault(breaker: Breaker) -> None:
    """A slow rule without its seconds would never open, and nobody would know before the outage."""
    assert 1 == len(resolved(breaker).faults)


# --- derived ---------------------------------------------------------------------------------------------------------


def test_what_is_not_given_follows_from_what_is() -> None:
    parts = (Breaker(open_seconds=90), RateLimit(40), Bulkhead(5), Timeout(45))

    values = resolved(*parts).values

    expected = {"open_seconds_max": 90, "probe_lease_seconds": 45, "queue_max": 10, "burst": 40}
    assert expected == {name: getattr(values, name) for name in expected}


def test_every_setting_has_a_value_under_its_name() -> None:
    """Machines read by name; one that is missing would be a KeyError at the first call."""
    found = resolved(Retry())

    assert SETTINGS.keys() == found.origins.keys()


@pytest.mark.parametrize(
    ("parts", "setting"),
    [
        ((Breaker(open_seconds=9, open_seconds_max=8),), "open_seconds_max"),
        ((RateLimit(),), "rate"),
        ((RateLimit(5, wait_seconds_max=0), Bulkhead(5, wait_seconds_max=9)), "wait_seconds_max"),
        ((Breaker(Rate(), consecutive=5),), "consecutive"),
        ((Adaptive(),), "Adaptive()"),
    ],
)
def test_settings_that_contradict_each_other_are_a_fault(parts: Any, setting: str) -> None:
    """Each of these used to be settled in silence, for the part that came last."""
    assert [setting] == [fault.replace("=", ":").split(":")[0] for fault in resolved(*parts).faults]


def test_limits_that_cross_between_sources_are_a_fault() -> None:
    """Each is legal where it is given; together they leave no limit at all."""
    found = resolved(Bulkhead(Adaptive()), environ={"SPOOLPROOF_POLICY_PSP_LIMIT_MIN": "300"})

    assert ("limit_min=300: at most limit_max=200",) == found.faults


def test_parts_may_agree_on_a_setting_they_share() -> None:
    parts = (RateLimit(5, wait_seconds_max=2), Bulkhead(5, wait_seconds_max=2))

    assert (2, ()) == (resolved(*parts).values.wait_seconds_max, resolved(*parts).faults)


# --- a part the policy lacks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "parts", "lacking"),
    [
        ("RATE", (Retry(),), "rate_limit"),
        ("RAMP_SECONDS", (Retry(),), "breaker"),
        ("CONSECUTIVE", (Breaker(Rate()),), "consecutive rule"),
        ("RUNNING_MAX", (Bulkhead(Adaptive()),), "fixed limit"),
        ("LIMIT_MAX", (Bulkhead(5),), "Adaptive limit"),
        ("BUDGET_RATIO", (Timeout(),), "retry or hedge"),
    ],
)
def test_a_setting_for_a_part_the_policy_lacks_is_a_fault(variable: str, parts: Any, lacking: str) -> None:
    """Whoever sets it believes in a protection that is not there."""
    name = f"SPOOLPROOF_POLICY_PSP_{variable}"

    (fault,) = resolved(*parts, environ={name: "1"}).faults

    assert name in fault
    assert f"policy 'psp' has no {lacking}" in fault


def test_a_setting_in_the_file_for_a_missing_part_is_a_fault(write: Any) -> None:
    (fault,) = resolved(Retry(), toml=write("[policies.psp]\nrunning_max = 5\n")).faults

    assert "running_max=5 (file): policy 'psp' has no bulkhead" == fault


def test_defaults_and_presets_are_for_policies_of_every_sort() -> None:
    """They mean whoever has the part; a policy without it is no mistake."""
    environ = {"SPOOLPROOF_POLICY_DEFAULT_RATE": "5", "CB_RESET_TIMEOUT": "7000", "CB_FAILURE_THRESHOLD": "5"}

    found = resolved(Retry(), environ=environ, preset="database")

    assert ((), ()) == (found.faults, found.shadowed)


def test_every_kind_of_part_is_known_here() -> None:
    parts = (Fallback(0), Retry(), Hedge(), Breaker(), RateLimit(5), Bulkhead(), Chaos(hang=True), Timeout())

    assert () == resolved(*parts).faults


def test_the_ramp_of_a_policy_that_drives_a_consumer_may_be_set() -> None:
    """`gating()` raises it only where nobody has said anything."""
    found = resolved(Breaker(), environ={"SPOOLPROOF_POLICY_PSP_RAMP_SECONDS": "3"})

    assert (3.0, "SPOOLPROOF_POLICY_PSP_RAMP_SECONDS") == (found.values.ramp_seconds, found.origins["ramp_seconds"])


# --- aliases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule", "setting", "value"),
    [
        ("5", "consecutive", "consecutive", 5),
        ("1", "consecutive", "consecutive", 1),
        ("40%", "rate", "failure_rate", 0.4),
        ("100%", "rate", "failure_rate", 1.0),
        ("0.4", "rate", "failure_rate", 0.4),
        (" 5 ", "consecutive", "consecutive", 5),
    ],
)
def test_a_threshold_is_the_only_rule(text: str, rule: str, setting: str, value: float) -> None:
    found = resolved(Breaker(), environ={"CB_FAILURE_THRESHOLD": text})

    assert (rule, value) == (found.rule, getattr(found.values, setting))
    assert "CB_FAILURE_THRESHOLD" == found.origins[setting]


def test_a_reset_is_exact_and_in_milliseconds() -> None:
    values = resolved(Breaker(), environ={"CB_RESET_TIMEOUT": "30000"}).values

    assert (30.0, 1.0, 0.0) == (values.open_seconds, values.open_factor, values.open_jitter)


@pytest.mark.parametrize(
    ("breaker", "expected"),
    [
        (Breaker(), (60.0, 60.0)),
        (Breaker(Rate()), (60.0, None)),
        (Breaker(Consecutive()), (30.0, 60.0)),
    ],
)
def test_a_monitor_period_bounds_whichever_rule_there_is(breaker: Breaker, expected: Any) -> None:
    found = resolved(breaker, environ={"CB_MONITOR_PERIOD": "60000"})

    assert expected == (found.values.window_seconds, found.values.within_seconds)
    assert () == found.shadowed


def test_a_monitor_period_without_any_rule_to_bound_is_recorded() -> None:
    found = resolved(Breaker(Slow(0.5, slow_seconds=2)), environ={"CB_MONITOR_PERIOD": "60000"})

    assert {"window_seconds", "within_seconds"} == {shadowed.setting for shadowed in found.shadowed}


@pytest.mark.parametrize("text", ["", "30s", "30000.0", "1e4", "-5", "99", "3600001", "٣٠٠٠٠", "9" * 5000])
def test_milliseconds_are_whole_bare_and_in_range(text: str) -> None:
    """`30s` read as 30 ms, or as nothing, would be an outage in either direction."""
    _, faults = config.load({"CB_RESET_TIMEOUT": text}, None)

    assert [f"CB_RESET_TIMEOUT={text!r}: whole milliseconds from 100 to 3,600,000, without a unit"] == faults


@pytest.mark.parametrize(
    "text", ["", "0", "1001", "1.0", "1.5", "0.001", "0%", "101%", "-1", "five", "nan", "nan%", "5 s"]
)
def test_a_threshold_that_could_mean_anything_is_a_fault(text: str) -> None:
    _, faults = config.load({"CB_FAILURE_THRESHOLD": text}, None)

    assert [f"CB_FAILURE_THRESHOLD={text!r}"] == [fault.split(":")[0] for fault in faults]


@pytest.mark.parametrize(
    ("variable", "text", "warning"),
    [
        ("CB_FAILURE_THRESHOLD", "21", "for a rate write 21%"),
        ("CB_RESET_TIMEOUT", "999", "the unit is milliseconds"),
    ],
)
def test_a_doubtful_alias_warns_and_works(variable: str, text: str, warning: str) -> None:
    assert [True] == [warning in one for one in loaded({variable: text}).warnings]


@pytest.mark.parametrize(("variable", "text"), [("CB_FAILURE_THRESHOLD", "20"), ("CB_RESET_TIMEOUT", "1000")])
def test_an_alias_at_the_edge_does_not_warn(variable: str, text: str) -> None:
    assert () == loaded({variable: text}).warnings


@pytest.mark.parametrize(
    ("alias", "twin"),
    [
        ({"CB_FAILURE_THRESHOLD": "5"}, {"SPOOLPROOF_POLICY_DEFAULT_CONSECUTIVE": "6"}),
        ({"CB_FAILURE_THRESHOLD": "40%"}, {"SPOOLPROOF_POLICY_DEFAULT_FAILURE_RATE": "0.5"}),
        ({"CB_RESET_TIMEOUT": "5000"}, {"SPOOLPROOF_POLICY_DEFAULT_OPEN_SECONDS": "6"}),
        ({"CB_MONITOR_PERIOD": "5000"}, {"SPOOLPROOF_POLICY_DEFAULT_WINDOW_SECONDS": "6"}),
    ],
)
def test_an_alias_that_contradicts_its_twin_is_a_fault(alias: dict[str, str], twin: dict[str, str]) -> None:
    _, faults = config.load(alias | twin, None)

    assert [True] == [next(iter(twin)) in fault and next(iter(alias)) in fault for fault in faults]


def test_an_alias_may_agree_with_its_twin() -> None:
    sources = loaded({"CB_RESET_TIMEOUT": "6000", "SPOOLPROOF_POLICY_DEFAULT_OPEN_SECONDS": "6"})

    assert 6.0 == sources.defaults["open_seconds"][0]


# --- faults ----------------------------------------------------------------------------------------------------------


def test_all_faults_of_all_sources_are_found_at_once(write: Any) -> None:
    environ = {
        "CB_FAILURE_THRESHOLD": "many",
        "CB_RESET_TIMEOUT": "30s",
        "CB_MONITOR_PERIOD": "",
        "SPOOLPROOF_POLICY_DEFAULT_ATTEMPTS": "eleven",
        "SPOOLPROOF_POLICY_DEFAULT_ATEMPTS": "3",
    }
    file = write("policy = 1\n[presets.ours]\nattempts = true\n[policies.psp]\nburst = nan\nnonsense = 1\npreset = 3\n")

    _, faults = config.load(environ, file)

    for part in (*environ, "[policy]", "attempts=True", "burst=nan", "nonsense=1", "preset=3"):
        assert 1 == sum(part in fault for fault in faults), part
    assert 10 == len(faults)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("policies = 3\n", "policies=3"),
        ("presets = []\n", "presets=[]"),
        ("[policies]\npsp = 3\n", "psp=3"),
        ("[policies.psp.retry]\nattempts = 3\n", "no such setting"),
        ("[policies.psp]\nwindow_seconds = 5\nwindow_calls = 5\n", "window_calls"),
        ("[policies.psp\n", "policies.toml"),
    ],
)
def test_a_file_that_does_not_say_what_it_seems_to_is_a_fault(write: Any, text: str, part: str) -> None:
    _, faults = config.load({}, write(text))

    assert [True] == [part in fault for fault in faults]


def test_a_file_may_be_named_by_a_text_and_is_read_as_utf_8(write: Any) -> None:
    file = write("# größer als üblich\n[policies.psp]\nattempts = 5\n")

    assert {"psp": {"attempts": 5}} == loaded(toml=str(file)).policies


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    _, faults = config.load({}, tmp_path / "none.toml")

    assert [True] == ["SPOOLPROOF_POLICIES_FILE" in fault for fault in faults]


def test_faults_of_a_policys_variables_are_found_when_it_is_resolved() -> None:
    """Where a name ends and a setting begins is only known then."""
    environ = {"SPOOLPROOF_POLICY_PSP_ATTEMPTS": "11", "SPOOLPROOF_POLICY_PSP_BUDGET_RATIO": "a"}

    faults = resolved(Retry(), environ=environ).faults

    assert [variable for variable in environ] == [fault.split("=")[0] for fault in faults]


def test_a_text_that_is_no_choice_is_a_fault_that_lists_them() -> None:
    found = resolved(Breaker(), environ={"SPOOLPROOF_POLICY_PSP_MODE": "On"})

    assert ("SPOOLPROOF_POLICY_PSP_MODE='On': one of enforce, observe, off",) == tuple(found.faults)


def test_an_unknown_setting_under_the_prefix_is_a_fault() -> None:
    sources = loaded({"SPOOLPROOF_POLICY_PSP_ATEMPTS": "3"})

    assert ["SPOOLPROOF_POLICY_PSP_ATEMPTS='3': no such setting 'atempts'"] == sources.unused(["psp"])


@pytest.mark.parametrize(
    ("names", "variable"),
    [
        (["a.b", "a-b"], "SPOOLPROOF_POLICY_A_B_ATTEMPTS"),
        (["psp", "psp-slow"], "SPOOLPROOF_POLICY_PSP_SLOW_WINDOW_SECONDS"),
        (["default"], "SPOOLPROOF_POLICY_DEFAULT_ATTEMPTS"),
    ],
)
def test_one_variable_for_two_names_is_a_fault(names: list[str], variable: str) -> None:
    """Whichever of them it meant, the other would be changed with it."""
    assert [True] == ["rename" in fault for fault in loaded({variable: "3"}).unused(iter(names))]


def test_names_that_only_begin_alike_share_nothing() -> None:
    environ = {"SPOOLPROOF_POLICY_PSP_ATTEMPTS": "3", "SPOOLPROOF_POLICY_PSP_EU_ATTEMPTS": "4"}

    assert [] == loaded(environ).unused(["psp", "psp-eu"])
    assert 3 == resolved(Retry(), environ=environ).values.attempts
