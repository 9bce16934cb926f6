"""A policy that is copied or pickled is the same policy: it goes by its name, and counts where it is."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import pytest

from spoolproof.errors import PolicyUsageError
from spoolproof.policies import Breaker, Classifier, Consecutive, Policy, Registry, Retry, Timeout

POLICY = Policy(
    "test-copies",
    Retry(2, delay_seconds=0),
    Breaker(Consecutive(5)),
    classify=Classifier().transient(KeyError, unknown=False).result(lambda value: None),
    lint_ignore={"W1", "W4"},
)


@dataclass
class Client:
    """What users keep policies in, and copy or send to other processes."""

    policy: Any


@POLICY
def double(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("make", [lambda: POLICY, lambda: POLICY.for_key("eu")], ids=["policy", "key"])
def test_a_copy_is_the_same_policy(way: Callable[[Any], Any], make: Callable[[], Policy]) -> None:
    policy = make()
    policy.call_sync(int)

    copied = way(Client(policy)).policy

    assert (policy.name, policy.key) == (copied.name, copied.key)
    assert policy.machines is copied.machines
    assert 0 == copied.call_sync(int)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_options_of_calls_are_copied_with_the_policy(way: Callable[[Any], Any]) -> None:
    using = POLICY.using(idempotency_key="k", lane="critical")
    using.call_sync(int)

    copied = way(Client(using)).policy

    assert POLICY.machines is copied._runner.machines
    assert using._options == copied._options


def test_another_process_has_the_policy_that_its_module_makes_there() -> None:
    """As with a pool of workers: what they count is their own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        doubled = pool.submit(double, 4).result(30)
        called = pool.submit(POLICY.for_key("eu").call_sync, int, "5").result(30)

    assert (8, 5) == (doubled, called)


def test_a_policy_that_is_not_made_where_it_is_unpickled_says_so() -> None:
    data = pickle.dumps(POLICY).replace(b"test-copies", b"test-nobody")

    with pytest.raises(PolicyUsageError, match="import the module that makes it"):
        pickle.loads(data)


def test_a_policy_of_another_registry_is_copied_and_not_pickled() -> None:
    policy = Policy("psp", Timeout(5), registry=Registry({}))

    assert policy is copy.deepcopy(policy)
    with pytest.raises(PolicyUsageError, match="registry of its own"):
        pickle.dumps(policy)
