"""Which model is where, and who may use it.

`scheduler.py` decides (pure: events in, instructions out), `manager.py` acts (async) and feeds results back as
events. Everything but the manager imports nothing outside this folder and audioproto; a test holds it to that.

To find who causes an instruction, grep its class name: it occurs in events.py, scheduler.py and manager.py.
"""
