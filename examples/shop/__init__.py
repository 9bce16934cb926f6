"""A shop of two services: sales takes orders over HTTP, payments takes the money."""
