"""What answers and errors of SQS mean: each entry is judged by its own, and no foreign error is left unmapped."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from botocore import exceptions
from botocore.session import get_session

from spoolproof.brokers.sqs.client import SqsError, Trouble, error_of, trouble_of
from spoolproof.brokers.sqs.sender import _post
from spoolproof.ports.broker import NACKED, Barred, Confirmed, PublishOutcome, Refused, Unknown


class Asked:
    """SQS as it answers to each request in turn."""

    def __init__(self, *answers: dict[str, Any] | SqsError) -> None:
        self._answers = list(answers)
        self.sizes: list[int] = []

    async def __call__(self, *, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.sizes.append(len(Entries))
        answer = self._answers.pop(0)
        if isinstance(answer, SqsError):
            raise answer
        return answer


async def outcomes_of(asked: Asked, count: int) -> list[PublishOutcome]:
    return await _post(asked, "Entries", [{"MessageBody": str(number)} for number in range(count)])


def failed(number: int, code: str, *, is_senders: bool) -> dict[str, Any]:
    return {"Id": str(number), "Code": code, "Message": "…", "SenderFault": is_senders}


async def test_each_entry_of_a_batch_has_the_outcome_of_its_own() -> None:
    """A batch that succeeds says nothing of its entries: 200 may hold ten failures."""
    asked = Asked(
        {
            "Successful": [{"Id": "0"}, {"Id": "6"}],
            "Failed": [
                failed(1, "InternalError", is_senders=False),
                failed(2, "InvalidMessageContents", is_senders=True),
                failed(3, "AccessDenied", is_senders=True),
                failed(4, "NeverHeardOf", is_senders=False),
                failed(5, "KmsDisabled", is_senders=True),
            ],
        }
    )

    outcomes = await outcomes_of(asked, 8)

    expected = [Confirmed, Unknown, Refused, Barred, type(NACKED), Barred, Confirmed, Unknown]
    assert expected == [type(one) for one in outcomes]


async def test_a_batch_that_is_refused_goes_one_by_one() -> None:
    """L25: the request names no entry; nine innocent messages must not become dead letters."""
    wrong = SqsError(Trouble.WRONG, "InvalidParameterValue")
    confirmed = {"Successful": [{"Id": "0"}]}
    asked = Asked(wrong, confirmed, wrong, confirmed)

    outcomes = await outcomes_of(asked, 3)

    assert [Confirmed(), Refused(400, "InvalidParameterValue"), Confirmed()] == outcomes
    assert [3, 1, 1, 1] == asked.sizes


@pytest.mark.parametrize("trouble", [Trouble.AWAY, Trouble.THROTTLED, Trouble.CREDENTIALS, Trouble.MISSING])
async def test_what_is_no_fault_of_the_messages_is_not_tried_one_by_one(trouble: Trouble) -> None:
    """Ten requests in place of one are no back-off."""
    asked = Asked(SqsError(trouble, "…"))

    with pytest.raises(SqsError):
        await outcomes_of(asked, 3)

    assert [3] == asked.sizes


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AWS.SimpleQueueService.NonExistentQueue", 400, Trouble.MISSING),
        ("NotFound", 404, Trouble.MISSING),
        ("RequestThrottled", 403, Trouble.THROTTLED),
        ("KMS.ThrottlingException", 400, Trouble.THROTTLED),
        ("Throttled", 429, Trouble.THROTTLED),
        ("Whatever", 429, Trouble.THROTTLED),
        ("Whatever", 503, Trouble.AWAY),
        ("InternalError", 400, Trouble.AWAY),
        ("InvalidClientTokenId", 403, Trouble.CREDENTIALS),
        ("ExpiredToken", 400, Trouble.CREDENTIALS),
        ("AccessDenied", 403, Trouble.DENIED),
        ("KMSAccessDenied", 400, Trouble.DENIED),
        ("QueueDeletedRecently", 400, Trouble.DENIED),
        ("InvalidMessageContents", 400, Trouble.WRONG),
    ],
)
def test_codes(code: str, status: int, expected: Trouble) -> None:
    """SQS and SNS name the same thing differently."""
    assert expected is trouble_of(code, status)


@pytest.mark.parametrize("service", ["sqs", "sns"])
def test_no_error_of_a_message_is_taken_for_a_missing_right(service: str) -> None:
    """Every code the service declares is known, or is a fault of the request."""
    model = get_session().get_service_model(service)
    about_requests = {
        *(
            "BatchEntryIdsNotDistinct",
            "BatchRequestTooLong",
            "EmptyBatchRequest",
            "InvalidAddress",
            "InvalidBatchEntryId",
        ),
        *("InvalidAttributeName", "InvalidAttributeValue", "InvalidIdFormat", "InvalidMessageContents", "UserError"),
        *("MessageNotInflight", "PurgeQueueInProgress", "QueueNameExists", "ReceiptHandleIsInvalid", "StaleTag"),
        *("TooManyEntriesInBatchRequest", "UnsupportedOperation", "EndpointDisabled", "InvalidParameter", "OptedOut"),
        *("ParameterValueInvalid", "InvalidState", "PlatformApplicationDisabled", "TagLimitExceeded", "TagPolicy"),
        *("ValidationException", "VerificationException", "ResourceNotFoundException", "ResourceNotFound"),
    }

    unknown = set()
    for name in model.shape_names:
        shape = model.shape_for(name)
        if shape.metadata.get("exception"):
            error = shape.metadata.get("error", {})
            code = error.get("code", name)
            if trouble_of(code, error.get("httpStatusCode", 400)) is Trouble.WRONG:
                unknown.add(code)

    assert unknown <= about_requests


@pytest.mark.parametrize(
    ("error", "expected", "was_reached"),
    [
        (exceptions.EndpointConnectionError(endpoint_url="http://x"), Trouble.AWAY, False),
        (exceptions.ConnectTimeoutError(endpoint_url="http://x"), Trouble.AWAY, False),
        (exceptions.ReadTimeoutError(endpoint_url="http://x"), Trouble.AWAY, True),
        (exceptions.NoCredentialsError(), Trouble.CREDENTIALS, True),
        (exceptions.ParamValidationError(report="…"), Trouble.WRONG, True),
        (aiohttp.ClientPayloadError("cut"), Trouble.AWAY, True),
        (TimeoutError(), Trouble.AWAY, True),
        (
            exceptions.ClientError(
                {"Error": {"Code": "ServiceUnavailable"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "SendMessage"
            ),
            Trouble.AWAY,
            True,
        ),
        (exceptions.ClientError({}, "SendMessage"), Trouble.WRONG, True),
    ],
)
def test_errors(error: Exception, expected: Trouble, was_reached: bool) -> None:
    """An outage costs a message nothing; what is below botocore is one too."""
    ours = error_of(error)

    assert (expected, was_reached) == (ours.trouble, ours.was_reached)
    assert str(ours)
