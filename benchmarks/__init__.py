"""Benchmarks against peers: ratios in one run, same servers, same message, same durability.

`python -m benchmarks p1 p4 --rounds 5 --quick`. A contender runs in a process of its own, alone, once per round; the
contenders of a benchmark take turns (A B C A B C …), and medians are compared. Those of P9 and P10, which take a
microsecond, share one process and are compared round by round. Absolute figures drift by half on a
shared machine; ratios of one run do not. A benchmark is never a timed test.
"""
