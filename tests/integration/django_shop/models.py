"""What the shop keeps."""

from django.db import models


class Order(models.Model):
    id = models.CharField(max_length=20, primary_key=True)


class Payment(models.Model):
    order_id = models.CharField(max_length=20)
