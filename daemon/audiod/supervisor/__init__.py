"""Processes: zygotes and workers are started, forked, spoken to, killed by group, reaped, and their memory measured.

Decides nothing about who runs; residency does. Never imports audioworker, which is only ever spawned.
"""
