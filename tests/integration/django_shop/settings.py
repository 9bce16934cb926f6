"""Django's settings; the database is that of the service's store."""

import os
from urllib.parse import urlsplit

url = urlsplit(os.environ["SPOOLPROOF_STORE"])

if url.scheme == "sqlite":
    _database = {"ENGINE": "django.db.backends.sqlite3", "NAME": url.path.removeprefix("/")}
else:
    _database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path.removeprefix("/"),
        "USER": url.username,
        "PASSWORD": url.password,
        "HOST": url.hostname,
        "PORT": url.port,
    }

SECRET_KEY = "of a test"
DATABASES = {"default": _database}
INSTALLED_APPS = ["django_shop"]
ROOT_URLCONF = "django_shop.views"
ALLOWED_HOSTS = ["testserver"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
