"""The way a call takes when nothing happens: one coroutine, written out for the parts a policy has.

Most calls are admitted at once and succeed. For those a Call, a coroutine per part and a method per guard cost more
than everything they do. So a policy writes the source of one coroutine with only the steps its parts need, as
`dataclasses` writes `__init__`. It keeps no rules of its own: what is not plain success (a guard that makes the call
wait, an error, a listener, an enclosing deadline) is handed to the pipeline with what has happened so far in
`call.prior`, and the pipeline goes on as if its first attempt had run inside it.

What must change together: a step that a node or guard does on success belongs here too. `is_on` is for the test that
compares both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import CodeType, CoroutineType
from typing import TYPE_CHECKING, Any, cast

from spoolproof import clock
from spoolproof.policies import events
from spoolproof.policies.admission import Permit
from spoolproof.policies.bulkhead import Slots
from spoolproof.policies.call import Call, Held, Prior
from spoolproof.policies.circuit import Circuit
from spoolproof.policies.deadline import DeadlineNode, ends_at
from spoolproof.policies.fallback import FallbackNode
from spoolproof.policies.pipeline import Attempt
from spoolproof.policies.rate_limit import Tokens
from spoolproof.policies.retry import RetryNode, is_repeating
from spoolproof.policies.timeout import await_it, finish, is_awaitable

if TYPE_CHECKING:
    from spoolproof.policies.policy import Policy

is_on = True

_SOURCE = """\
async def express({parameters}*args, **kwargs):
    if events.listeners or current_deadline() is not None{or_repeating}:
        return await run(new_call(function, args, kwargs))
    now = {now}
    if cooldown.until > now:
        return await run(new_call(function, args, kwargs))
    {note_call}
    {no_permits}
    {admit}
    has_started = False
    {set_deadline}
    try:
        {enter}
        has_started = True
        {invoke}
    except BaseException as error:
        caught = error
    else:
        {leave}
        {end_deadline}
        return result
    {end_deadline}
    call = seat(function, args, kwargs, now, has_started, {permits}, caught)
    try:
        return await go_on(call)
    finally:
        caught = call = None
"""
_STEP_BY_HAND = """\
result = function(*args, **kwargs)
if type(result) is not CoroutineType and is_awaitable(result, function):
    result = await_it(result)
if type(result) is CoroutineType:
    try:
        waited_for = result.send(None)
    except StopIteration as end:
        result = end.value
    else:
        result = await finish(seat(function, args, kwargs, now), result, waited_for, machines.timeout_seconds)"""
_AWAIT = """\
result = function(*args, **kwargs)
if type(result) is CoroutineType or is_awaitable(result, function):
    result = await result"""

# The locked steps of the guards, written out: a method call and a `with` each cost as much as what is done under the
# lock. Nothing between acquire and release can raise.
_RECORD_SUCCESS = """\
ended = {now}
acquire_circuit()
window = tally.plain_window
if {permit} == circuit.plain_epoch and ended < window.ends:
    circuit.successes_total += 1
    tally.consecutive = 0
    window.total += 1
    release_circuit()
else:
    release_circuit()
    record_success({permit}, ended)"""
_TAKE_SLOT = """\
acquire_slots()
if slots.running < slots.limit and not slots.queued:
    slots.running += 1
    {permit} = True
release_slots()
if {permit} is None:
    raise WaitsFirst"""
_GIVE_SLOT_BACK = """\
acquire_slots()
if slots.queued:
    release_slots()
    give_back()
else:
    slots.running -= slots.running > 0
    release_slots()"""
_TAKE_TOKEN = """\
{permit} = take_token(now)
if {permit} is None:
    raise WaitsFirst"""


class WaitsFirst(Exception):
    """A guard makes the call wait; the pipeline goes on from there."""


def compile_express(policy: Policy, function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Return a coroutine function for calls of `function`, or of its first argument for None.

    None if the parts have no express way: Hedge, Chaos, `last_good`, an adaptive limit, judged results, another order.
    """
    pipeline, machines = policy.machines.pipeline, policy.machines
    segment = _plain_segment(pipeline.root)
    if not is_on or segment is None or segment.judge.judges_results or policy.has_chaos:
        return None
    has_deadline, has_retry = pipeline.deadline is not None, pipeline.retry is not None
    has_fallback = isinstance(pipeline.root, FallbackNode)
    names: dict[str, Any] = {
        **_NAMES,
        "cooldown": machines.cooldown,
        "function": function,
        "go_on": policy.go_on,
        "machines": machines,
        "monotonic": policy.clock.monotonic,
        "new_call": policy.new_call,
        "run": policy.run,
        "seat": _seat_of(policy, has_deadline),
    }
    is_ambient = policy.clock is clock.AMBIENT
    now = "monotonic() if clock._replaced else read_monotonic()" if is_ambient else "monotonic()"
    steps = _guard_steps(segment, names, now, is_rejected_at_once=not has_fallback)
    if pipeline.retry is not None:
        names["note_call"] = pipeline.retry.budget.note_call
    is_limited = segment.timeout_seconds is not None or has_deadline
    source = _fill(
        _SOURCE,
        parameters="" if function is not None else "function, /, ",
        or_repeating=" or is_repeating()" if has_retry else "",
        now=now,
        note_call="note_call(now)" if has_retry else "",
        set_deadline="held = Held(ends_at, now + machines.deadline_seconds)" if has_deadline else "",
        end_deadline="held.end()" if has_deadline else "",
        invoke=_STEP_BY_HAND if is_limited else _AWAIT,
        **steps,
    )
    exec(_compiled(source), names)
    made: Callable[..., Any] = names["express"]
    return made


_NAMES = {
    "CoroutineType": CoroutineType,
    "Held": Held,
    "WaitsFirst": WaitsFirst,
    "await_it": await_it,
    "clock": clock,
    "read_monotonic": clock._read_monotonic,
    "current_deadline": ends_at.get,
    "events": events,
    "finish": finish,
    "is_awaitable": is_awaitable,
    "is_repeating": is_repeating.get,
    "ends_at": ends_at,
}


@lru_cache(maxsize=64)
def _compiled(source: str) -> CodeType:
    return compile(source, "<express way of a policy>", "exec")


def _guard_steps(segment: Attempt, names: dict[str, Any], now: str, *, is_rejected_at_once: bool) -> dict[str, str]:
    """Return how the guards are entered and left, and put what that needs into `names`."""
    admit: list[str] = []
    enter: list[str] = []
    leave: list[str] = []
    permits = [f"permit_{number}" for number in range(len(segment.guards))]
    for permit, guard in zip(permits, segment.guards, strict=True):
        if isinstance(guard, Circuit):
            names |= {
                "circuit": guard,
                "tally": guard.tally,
                "acquire_circuit": guard.lock.acquire,
                "release_circuit": guard.lock.release,
                "enter_circuit": guard.enter_slowly,
                "record_success": guard.succeed,
            }
            # outside `try` where it can be: a rejection then goes straight to the caller
            first = admit if permit == "permit_0" and is_rejected_at_once else enter
            first.append(f"{permit} = circuit.plain_epoch or enter_circuit(now)")
            leave.insert(0, _RECORD_SUCCESS.format(now=now, permit=permit))
        elif isinstance(guard, Slots):
            names |= {
                "slots": guard,
                "acquire_slots": guard.lock.acquire,
                "release_slots": guard.lock.release,
                "give_back": guard.give_back,
            }
            enter.append(_TAKE_SLOT.format(permit=permit))
            leave.insert(0, _GIVE_SLOT_BACK)
        else:
            names["take_token"] = cast("Tokens", guard).take
            enter.append(_TAKE_TOKEN.format(permit=permit))
    return {
        "no_permits": "".join(f"{permit} = " for permit in permits) + "None" if permits else "",
        "admit": "\n".join(admit),
        "enter": "\n".join(enter),
        "leave": "\n".join(leave),
        "permits": f"({''.join(f'{permit}, ' for permit in permits)})",
    }


def _seat_of(policy: Policy, has_deadline: bool) -> Callable[..., Call]:
    machines = policy.machines

    def seat(
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        now: float,
        has_started: bool = True,
        permits: tuple[object, ...] | None = None,
        error: BaseException | None = None,
    ) -> Call:
        """Return the call as the pipeline would have it by now. permits: None while the attempt goes on."""
        call = policy.new_call(function, args, kwargs)
        call.now = call.started_at = call.attempt_started_at = now
        if has_deadline and machines.deadline_seconds is not None:
            call.deadline_at = now + machines.deadline_seconds
        if permits is None:
            call.attempts = 1
            call.has_started = True
        else:
            taken = [permit for permit in permits if permit is not None]
            call.prior = Prior(taken, has_started, None if type(error) is WaitsFirst else error)
            for permit in taken:
                if isinstance(permit, Permit):
                    permit.belong_to(call)  # it may wait now, and that is not the dependency's doing
        return call

    return seat


def _plain_segment(root: Any) -> Attempt | None:
    """Return the innermost segment of a pipeline in the recommended order; None for any other."""
    node = root
    if isinstance(node, FallbackNode):
        if node.remembers:
            return None
        node = node.inner
    for kind in (DeadlineNode, RetryNode):
        if isinstance(node, kind):
            node = node.inner
    if not isinstance(node, Attempt):
        return None
    return node if all(guard.is_plain for guard in node.guards) else None


def _fill(template: str, **texts: str) -> str:
    """Put texts into a template; one that stands alone on its line may have many lines, or none."""
    lines = []
    for line in template.splitlines():
        name = line.strip().removeprefix("{").removesuffix("}")
        if name in texts:
            indent = line[: line.index("{")]
            lines += [indent + one for one in texts[name].splitlines()]
            continue
        for key, text in texts.items():
            line = line.replace("{" + key + "}", text)
        lines.append(line)
    return "\n".join(lines) + "\n"
