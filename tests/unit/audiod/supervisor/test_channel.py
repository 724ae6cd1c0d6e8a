"""The daemon's end of the protocol over a real socket: frames whole, in order, and never in the way of the loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from audiod.supervisor.channel import Channel
from audioproto import framing
from audioproto.worker import Abort, FromWorker, Pause, Progress, Resume, Synthesize, ToWorker

LARGE = "x" * 1_000_000
"""More than a socket takes at once."""


class Peer:
    """The other end, read when the test says so."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.descriptors: list[int] = []
        self._decoder: framing.Decoder[Any] = framing.Decoder(ToWorker)  # type: ignore[arg-type]
        self._messages: list[Any] = []

    async def next(self) -> Any:
        while not self._messages:
            data, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, self.sock, 1 << 16, 4)
            assert data, "closed"
            self.descriptors += descriptors
            self._messages += self._decoder.feed(data)
        return self._messages.pop(0)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Peer]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    yield ours, Peer(theirs)
    ours.close()
    theirs.close()


def channel_on(sock: socket.socket) -> Channel[Any]:
    return Channel(sock, FromWorker, lambda message: None, lambda: None)  # type: ignore[arg-type]


async def test_what_is_posted_waits_behind_what_is_being_sent(ends: tuple[socket.socket, Peer]) -> None:
    sock, peer = ends
    channel = channel_on(sock)
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(channel.send(Synthesize(1, LARGE)))
        await asyncio.sleep(0)
        channel.post(Pause(1))
        channel.post(Resume(1))
        assert not sending.done()
        assert await peer.next() == Synthesize(1, LARGE)
        assert await peer.next() == Pause(1)
        assert await peer.next() == Resume(1)
    channel.close()


async def test_cancelled_before_its_first_byte_nothing_is_sent_and_after_it_all(
    ends: tuple[socket.socket, Peer],
) -> None:
    sock, peer = ends
    channel = channel_on(sock)
    async with asyncio.TaskGroup() as tasks:
        begun = tasks.create_task(channel.send(Synthesize(1, LARGE)))
        waiting = tasks.create_task(channel.send(Synthesize(2, LARGE)))
        await asyncio.sleep(0)
        begun.cancel()
        waiting.cancel()
    channel.post(Abort(3))
    assert await peer.next() == Synthesize(1, LARGE)
    assert await peer.next() == Abort(3)
    channel.close()


async def test_a_message_taken_back_in_time_says_so(ends: tuple[socket.socket, Peer]) -> None:
    sock, peer = ends
    channel = channel_on(sock)
    first = channel.put(Synthesize(1, LARGE))
    second = channel.put(Synthesize(2, LARGE))
    assert channel.withdraw(second)
    assert not channel.withdraw(first)
    assert await peer.next() == Synthesize(1, LARGE)
    await first.sent
    channel.close()


async def test_a_descriptor_comes_with_its_own_message(ends: tuple[socket.socket, Peer]) -> None:
    sock, peer = ends
    channel = channel_on(sock)
    reading, writing = os.pipe()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(channel.send(Synthesize(1, LARGE)))
        tasks.create_task(channel.send(Synthesize(2, LARGE), writing))
        assert await peer.next() == Synthesize(1, LARGE)
        assert await peer.next() == Synthesize(2, LARGE)
    (descriptor,) = peer.descriptors
    assert os.path.sameopenfile(descriptor, writing)
    for each in (descriptor, reading, writing):
        os.close(each)
    channel.close()


async def test_a_peer_that_is_gone_is_an_error_to_who_waits_and_nothing_to_who_does_not(
    ends: tuple[socket.socket, Peer],
) -> None:
    sock, peer = ends
    channel = channel_on(sock)
    sending = channel.put(Synthesize(1, LARGE))
    channel.post(Pause(1))
    peer.sock.close()
    with pytest.raises(ConnectionError):
        await sending.sent
    with pytest.raises(ConnectionError):
        await channel.send(Abort(1))
    channel.post(Pause(1))
    channel.close()
    channel.post(Pause(1))
    with pytest.raises(ConnectionError):
        await channel.send(Abort(1))


async def test_the_last_words_of_a_peer_that_is_gone_are_still_heard(ends: tuple[socket.socket, Peer]) -> None:
    sock, peer = ends
    heard: asyncio.Queue[Any] = asyncio.Queue()
    closed = asyncio.Event()
    channel: Channel[Any] = Channel(sock, FromWorker, heard.put_nowait, closed.set)  # type: ignore[arg-type]
    peer.sock.sendall(framing.encode(Progress("the reason")))
    peer.sock.close()
    channel.post(Pause(1))
    channel.post(Pause(2))
    await closed.wait()
    assert await heard.get() == Progress("the reason")
