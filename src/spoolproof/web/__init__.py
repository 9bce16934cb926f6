"""The dashboard: an ASGI application of plain pages, mounted in a service or alone. `spoolproof.web.people` has what an
application needs to say who may do what. Needs the extra `web`."""
