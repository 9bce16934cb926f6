"""What the HTTP services of the shop have in common."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse

from spoolproof.errors import BreakerOpen, LimitReached, Unavailable

Key = Annotated[str, Header(alias="Idempotency-Key", min_length=1, max_length=255)]


def answer_try_again(app: FastAPI) -> None:
    """Have an application answer 503 while its database is away: nothing is lost by saying so, the caller keeps what it
    has and sends it again under the same key."""

    @app.exception_handler(Unavailable)
    @app.exception_handler(BreakerOpen)
    @app.exception_handler(LimitReached)
    async def answer(request: Request, error: Exception) -> JSONResponse:
        seconds = math.ceil(error.retry_after_seconds) if isinstance(error, BreakerOpen) else 1
        # 500: it may have happened all the same, so a saga that asked must not take it for a no
        status = 503 if request.app.title == "sales" or not getattr(error, "is_unknown", False) else 500
        return JSONResponse({"detail": "temporarily unavailable"}, status, {"Retry-After": str(max(1, seconds))})
