"""The command line of audiod; `python -m audioctl` and the console script both start __main__.py.

Imports the standard library, msgspec and audioproto only, and what is slow only where a verb needs it, so that
`audioctl status` answers in a tenth of a second.
"""
