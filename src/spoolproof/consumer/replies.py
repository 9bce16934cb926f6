"""The answer to a request: what its handler returned, published with the handler's unit of work.

A message that is no request has no place for an answer; what its handler returns is then nobody's. Who asked may have
gone: an answer without a queue counts as delivered.
"""

from __future__ import annotations

import msgspec

from spoolproof.codec import is_mapping
from spoolproof.message import REPLY_TO, Message, Outgoing
from spoolproof.outbox.options import PublishOptions
from spoolproof.outbox.publish import Publisher

_TYPE_CHARACTERS_MAX = 200


def is_request(message: Message) -> bool:
    """Whether somebody waits for an answer."""
    return isinstance(message.headers.get(REPLY_TO), str)


def answer_of(request: Message, result: object, publisher: Publisher) -> Outgoing:
    """Return the answer. result: an event, a dict, or None for an empty answer; raises UnknownType or CodecError for
    what is none of these."""
    payload = {} if result is None else result
    options: PublishOptions = {
        "destination": f"queue:{request.headers[REPLY_TO]}",
        "correlation_id": request.correlation_id or request.id,
    }
    if is_mapping(type(payload)):
        options["type"] = f"{request.type[:_TYPE_CHARACTERS_MAX]}.reply"
    outgoing = publisher.outgoing(payload, options)
    message = msgspec.structs.replace(outgoing.message, causation_id=request.id, tenant=request.tenant)
    return msgspec.structs.replace(outgoing, message=message, may_be_unrouted=True)
