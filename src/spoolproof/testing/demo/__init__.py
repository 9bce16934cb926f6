"""`spoolproof demo`: the example shop, killed and frozen while it takes orders, and then the accounts.

    python -m spoolproof.testing.demo [--servers] [--orders 600] [--seed N] [--json] [--keep]

Who is who. The *orchestrator* (`run`) starts everything and breaks it. `sales` and `payments` are the shop's services
as processes of their own. The *clients* (`clients`) are one more process at which no fault is aimed: they place orders
over HTTP and write what they were answered into the *ledger*, one fsynced line before and one after each call. At the
end the *accounts* (`accounts`) hold the ledger against the tables of the two services; they know nothing of how either
came about.

Pace. Orders are released in slices, one more than there are faults. Each fault strikes at a drawn moment inside its
slice; the next slice is released once the fault was recovered. So every fault meets traffic, on a slow machine as on a
fast one, and none meets the aftermath of the one before.

Must never happen here: a verdict from anything but the ledger and the tables; a fault that is reported and did not
happen; a process that outlives the orchestrator.
"""
