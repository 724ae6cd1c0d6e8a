"""Wire types shared by the daemon, its workers and `audioctl`; it lives under daemon/ because both sides import it.

Imports the standard library and msgspec only: it runs inside every engine's runtime and in the CLI's first 50 ms.
"""

PROTOCOL_VERSION = 1
"""Raised when a message changes so that an older peer would misread it."""

__version__ = "0.1.0"
