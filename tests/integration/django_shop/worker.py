"""The worker process: runs the service until every order is paid."""

import asyncio

import django

django.setup()

from django_shop.models import Payment  # noqa: E402
from django_shop.service import service  # noqa: E402


def paid() -> list[str]:
    return sorted(Payment.objects.values_list("order_id", flat=True))


async def main() -> None:
    async with service.lifespan(), asyncio.timeout(30):
        while len(await asyncio.to_thread(paid)) < 2:
            await asyncio.sleep(0.02)
    print(await asyncio.to_thread(paid))


asyncio.run(main())
