"""What tests of a service need: clocks that are turned by hand, private servers, faults.

May import everything of the package; nothing that runs in production imports it. This package itself imports nothing,
so that `spoolproof.testing.clock` costs no driver.
"""
