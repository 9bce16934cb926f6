"""The web process: visits its own views, and says what came of it."""

import django
from django.core.management import call_command
from django.test import Client

django.setup()
call_command("migrate", run_syncdb=True, verbosity=0)

from django.db import connection  # noqa: E402
from django_shop.models import Order  # noqa: E402
from django_shop.service import OrderPlaced, service  # noqa: E402

from spoolproof import NotInTransaction  # noqa: E402

client = Client()
for path in ("good/o-1", "failing/o-2", "partly/o-3"):
    print(client.get(f"/{path}").content.decode())
try:
    service.publish_sync(OrderPlaced("o-4"), transaction=connection)
except NotInTransaction as error:
    print(error)
print(sorted(Order.objects.values_list("id", flat=True)))
