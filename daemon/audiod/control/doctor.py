"""Examines the daemon for `audioctl doctor`: which checks there are, in which order, and how long each may take.

What a check looks at is checks.py's matter. Nothing here or there blocks the event loop, whatever hangs.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import subprocess
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from audiod import threads
from audiod.control import checks
from audiod.control.checks import Patient
from audiod.media.audio_memory import AudioMemory
from audiod.media.formats import SpeechFormat
from audiod.media.upload import Upload
from audioproto.diagnosis import Finding, Verdict
from audioproto.errors import AudiodError
from audioproto.types import PCM_RATE_IN

logger = logging.getLogger(__name__)

LIMIT_S = 10.0
"""For a check that reads files: one that takes longer hangs on a disk or a mount."""

IMPORT_LIMIT_S = 120.0
"""For a runtime's: the largest libraries took 28 s from a cold disk."""

NETWORK_LIMIT_S = 30.0

_AT_ONCE = 3
_BEEP_S = 0.25
_BEEP_BYTES = 2**23
"""More than it takes, decoded or not."""
_SOUND = struct.Struct("<h")


class Check(NamedTuple):
    """`look` is awaited for at most `limit_s`."""

    name: str
    look: Callable[[], Awaitable[list[Finding]]]
    limit_s: float = LIMIT_S


def plan(patient: Patient, *, network: bool) -> Iterator[Check]:
    """Every check, in the order in which they are told.

    What is true of the host comes first, then a check for each runtime, then one for each model. A check that only some
    engine's runtime needs, such as whether its library was built for this GPU, belongs beside that runtime's.
    """
    of_the_host = (checks.config, checks.user, checks.state, checks.disk, checks.memory, checks.limits, checks.gpu)
    for look in (*of_the_host, checks.voices):
        yield Check(look.__name__, _in_thread(look, patient))
    yield Check("media", partial(media, patient))
    for name in sorted({entry.runtime for entry in patient.entries.values()}):
        yield Check(f"runtime {name}", _in_thread(partial(checks.runtime, name), patient), IMPORT_LIMIT_S)
    for name in patient.entries:
        yield Check(f"model {name}", _in_thread(partial(checks.model, name), patient))
    if network:
        yield Check("mirrors", _in_thread(checks.network, patient), NETWORK_LIMIT_S)


async def examine(planned: Iterable[Check], tell: Callable[[list[Finding]], Awaitable[None]]) -> None:
    """Run the checks, a few at a time; `tell` gets what each found, in the order planned, as early as that allows."""
    slots = asyncio.Semaphore(_AT_ONCE)
    async with asyncio.TaskGroup() as tasks:
        for running in [tasks.create_task(_run(check, slots)) for check in planned]:
            await tell(await running)


async def _run(check: Check, slots: asyncio.Semaphore) -> list[Finding]:
    """What the check found. One that hangs or breaks is a finding too: it is why doctor was asked."""
    async with slots:
        try:
            async with asyncio.timeout(check.limit_s):
                return await check.look()
        except (TimeoutError, subprocess.TimeoutExpired):
            found = f"could not be told within {check.limit_s:g} s: something hangs"
        except OSError as error:
            found = f"could not be told: {error}"
        except Exception:
            logger.exception("the check %r broke", check.name)
            found = "the check itself broke, and the log says where"
    return [Finding(check.name, Verdict.FAIL, found, "journalctl -u audiod -n 50")]


async def media(patient: Patient) -> list[Finding]:
    """Encode a beep and decode it again, in the processes that do so for clients."""
    pool = patient.media
    loop = asyncio.get_running_loop()
    started = loop.time()
    samples = [8000 if number // 20 % 2 else -8000 for number in range(round(_BEEP_S * PCM_RATE_IN))]
    try:
        async with pool.encoder(SpeechFormat.MP3, PCM_RATE_IN) as encoder:
            beep = await encoder.feed(b"".join(map(_SOUND.pack, samples))) + await encoder.finish()
        with AudioMemory(_BEEP_BYTES).hold() as held, Upload(len(beep), held) as upload:
            upload.write(beep)
            with await pool.decode(upload) as pcm:
                heard_s = pcm.duration_s
    except AudiodError as error:
        return [Finding("media", Verdict.FAIL, error.message, error.hint or "journalctl -u audiod -n 50")]
    took_s = loop.time() - started
    # MP3 pads what it holds to whole frames of 36 ms, and begins with some silence.
    if abs(heard_s - _BEEP_S) > 0.15:
        found = f"a beep of {_BEEP_S:g} s came back from MP3 with {heard_s:g} s"
        return [Finding("media", Verdict.FAIL, found, "journalctl -u audiod -n 50")]
    return [Finding("media", Verdict.OK, f"a beep was encoded to MP3 and decoded again in {took_s:.1f} s")]


def _in_thread(
    look: Callable[[Patient], Iterator[Finding]], patient: Patient
) -> Callable[[], Awaitable[list[Finding]]]:
    return lambda: threads.apart(lambda: list(look(patient)), "doctor")
