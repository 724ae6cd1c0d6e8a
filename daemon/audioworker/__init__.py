"""Runs inside an engine's runtime: zygote loop, worker loop, engine base classes, and one file per engine.

Never imported by the daemon, which only spawns `python -m audioworker`; imports nothing but audioproto, numpy and,
inside methods, the one library that the engine is for.
"""
