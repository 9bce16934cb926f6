"""Declaring in an account where not everything is allowed: what is refused is told and holds up nothing else."""

from __future__ import annotations

from typing import Any

from spoolproof.brokers.sqs.client import SqsError, Trouble
from spoolproof.brokers.sqs.names import Names
from spoolproof.brokers.sqs.topology import Declarer
from spoolproof.clock import SystemClock
from spoolproof.ports.broker import Barred, QueueSpec, Returned, Topology

ROOT = "arn:aws:sqs:eu-west-1:1:"
TOPOLOGY = Topology(
    service="shop",
    exchange="events",
    queues=(
        QueueSpec(name="orders", types=("order.placed",), delivery_limit=5),
        QueueSpec(name="payments", types=("paid",), delivery_limit=5),
    ),
    tiers_seconds=(1,),
)


class Account:
    """SQS and SNS in memory. `refused`: (operation, queue or topic) -> how."""

    def __init__(self, **refused: Trouble) -> None:
        self.refused = refused
        self.queues: dict[str, dict[str, str]] = {}
        self.topics: dict[str, list[str]] = {}
        self.pending = ""  #: the topic whose subscriptions nobody has confirmed

    def _check(self, operation: str, name: str) -> None:
        for what, trouble in self.refused.items():
            if what == f"{operation}_{name}".replace("-", "_"):
                raise SqsError(trouble, f"{operation} of {name}")

    async def sqs(self, operation: str, **arguments: Any) -> dict[str, Any]:
        name = arguments.get("QueueName") or arguments["QueueUrl"]
        self._check(operation, name)
        if operation == "create_queue":
            self.queues.setdefault(name, {"QueueArn": ROOT + name, "MessageRetentionPeriod": "345600"})
        elif name not in self.queues:
            raise SqsError(Trouble.MISSING, name)
        if operation == "set_queue_attributes":
            self.queues[name] |= arguments["Attributes"]
        return {"QueueUrl": name, "Attributes": self.queues[name]}

    async def sns(self, operation: str, **arguments: Any) -> dict[str, Any]:
        name = arguments.get("Name") or arguments["TopicArn"].rpartition(":")[2]
        self._check(operation, name)
        if operation == "create_topic":
            self.topics.setdefault(name, [])
        elif name not in self.topics:
            raise SqsError(Trouble.MISSING, name)
        if operation == "subscribe":
            self.topics[name].append(arguments["Endpoint"])
        arn = "PendingConfirmation" if name == self.pending else "arn:x"
        subscriptions = [{"Endpoint": one, "SubscriptionArn": arn} for one in self.topics[name]]
        return {"TopicArn": f"{ROOT.replace('sqs', 'sns')}{name}", "Subscriptions": subscriptions}


def declarer_of(account: Any) -> Declarer:
    clock: Any = SystemClock()
    return Declarer(TOPOLOGY, Names(""), account, clock)


async def test_a_topic_that_may_not_be_made_bars_its_type_and_no_other() -> None:
    """A missing right is no fault of a message, and none of the other types'."""
    account = Account(create_topic_events_paid=Trouble.DENIED)
    declarer = declarer_of(account)

    await declarer.apply()

    assert (await declarer.route("events", "order.placed")).topics
    paid = await declarer.route("events", "paid")
    assert ((), True) == (paid.topics, isinstance(paid.refusal, Barred))
    (issue,) = declarer.issues()
    assert "subscription of payments to 'paid'" in issue


async def test_what_was_refused_is_tried_again_and_its_issue_ends() -> None:
    """Somebody gives the right; nobody has to restart anything."""
    account = Account(create_topic_events_paid=Trouble.DENIED)
    declarer = declarer_of(account)
    await declarer.apply()

    account.refused.clear()
    await declarer.check()

    assert (await declarer.route("events", "paid")).topics
    assert [] == declarer.issues()


async def test_a_queue_that_may_not_be_made_holds_up_no_other_and_its_events_wait() -> None:
    """AWS refuses a name for a minute after its queue was deleted."""
    account = Account(create_queue_payments=Trouble.DENIED)
    declarer = declarer_of(account)

    await declarer.apply()

    assert (await declarer.route("events", "order.placed")).topics
    assert isinstance((await declarer.route("events", "paid")).refusal, Barred)
    account.refused.clear()
    await declarer.check()
    assert (await declarer.route("events", "paid")).topics


async def test_a_queue_that_others_have_made_needs_no_right_to_make_one() -> None:
    """Where an operator declares everything, a service that may only use it works."""
    account = Account(**{f"create_queue_{name}": Trouble.DENIED for name in ("orders", "payments")})
    for name in ("orders", "payments"):
        account.queues[name] = {"QueueArn": ROOT + name, "MessageRetentionPeriod": "1209600"}
    declarer = declarer_of(account)

    await declarer.apply()

    assert (await declarer.route("events", "paid")).topics
    assert [] == declarer.issues()


async def test_a_subscription_that_waits_for_its_confirmation_is_none() -> None:
    """L29: SNS confirms the message all the same."""
    account = Account()
    account.pending = "events-theirs"
    declarer = declarer_of(account)
    await declarer.apply()
    account.topics["events-theirs"] = ["https://example.org/hook"]

    assert isinstance((await declarer.route("events", "theirs")).refusal, Returned)
