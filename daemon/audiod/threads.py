"""Blocking work that may hang, each piece in a thread of its own: disks, mounts, drivers.

Not for what always ends; that is asyncio.to_thread's. A call that hangs there keeps a place in the pool that all
share, and the end of the event loop waits for it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def apart(work: Callable[[], T], name: str) -> T:
    """What `work` returns or raises. Whoever is cancelled leaves it alone, and it may run on for ever."""
    return await asyncio.wrap_future(_begin(work, name))


def limited(work: Callable[[], T], limit_s: float, name: str) -> T:
    """The same, not for the event loop. Raises TimeoutError after `limit_s`."""
    return _begin(work, name).result(limit_s)


def _begin(work: Callable[[], T], name: str) -> concurrent.futures.Future[T]:
    ended: concurrent.futures.Future[T] = concurrent.futures.Future()
    ended.set_running_or_notify_cancel()  # from here on it cannot be cancelled under the thread

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            ended.set_exception(error)
        else:
            ended.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return ended
