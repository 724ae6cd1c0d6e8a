"""Simulates hosts on which models displace each other, with the daemon's own scheduler and a virtual clock.

For judging policies: `scripts/simulate --help`. The daemon never imports it.
"""
