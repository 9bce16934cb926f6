"""One view for each way an order may go."""

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django_shop.models import Order
from django_shop.service import OrderPlaced, service


def place(order_id: str) -> None:
    Order.objects.create(id=order_id)
    service.publish_sync(OrderPlaced(order_id), key=order_id, transaction=connection)


@transaction.atomic
def good(request: HttpRequest, order_id: str) -> HttpResponse:
    place(order_id)
    return HttpResponse("placed")


def failing(request: HttpRequest, order_id: str) -> HttpResponse:
    try:
        with transaction.atomic():
            place(order_id)
            raise RuntimeError
    except RuntimeError:
        return HttpResponse("failed")


@transaction.atomic
def partly(request: HttpRequest, order_id: str) -> HttpResponse:
    place(order_id)
    try:
        with transaction.atomic():
            place(f"{order_id}-inner")
            raise RuntimeError
    except RuntimeError:
        return HttpResponse("partly")


urlpatterns = [path("good/<order_id>", good), path("failing/<order_id>", failing), path("partly/<order_id>", partly)]
