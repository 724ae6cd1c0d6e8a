"""The media zygote: imports PyAV once and forks a process for each job. `python -m audiod.media.process FD`.

FD is one end of a socketpair to the daemon; each packet on it brings the socket of a process to fork. The zygote
itself reads no audio; the processes confine themselves before they do, serve one job and end.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import traceback
from functools import partial
from typing import NoReturn

import msgspec

from audiod.media import decoder, encoder, hearing, vad
from audiod.media.messages import (
    PACKET_BYTES,
    PIECE_BYTES,
    Decode,
    Decoded,
    Decoding,
    Encode,
    Encoded,
    Feed,
    Finish,
    Flush,
    FromProcess,
    Hear,
    Heard,
    Limits,
    Listen,
    Refused,
    Started,
    ToProcess,
)
from audioproto import process
from audioproto.errors import AudiodError, BadAudio

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[ToProcess] = msgspec.msgpack.Decoder(ToProcess)


def main() -> int:
    process.die_with_parent(os.getppid())
    process.offer_to_oom_killer()
    process.set_name("audiod-media")
    # Ctrl-C reaches the whole foreground group and systemd's stop the whole cgroup; but the daemon may be draining,
    # and it alone decides when the zygote ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The kernel reaps the processes: the daemon watches their sockets, nobody needs their status.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _warm_up()
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=int(sys.argv[1]))
    parent = os.getpid()
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not packet:
            return 0
        if os.fork() == 0:
            control.close()
            _become_process(parent, socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


def _warm_up() -> None:
    """Use each codec once, so that the tables FFmpeg computes on first use are inherited, not computed by every job."""
    for form in encoder.ENCODED:
        speech = encoder.SpeechEncoder(form, 24_000, tempo=1.0)
        spoken = speech.feed(bytes(9_600)) + speech.finish()
        source, target = os.memfd_create("warm-up"), os.memfd_create("warm-up")
        os.write(source, spoken)
        decoder.decode(source, target, max_audio_s=10)
        os.close(source)
        os.close(target)


def _become_process(parent: int, sock: socket.socket) -> NoReturn:
    """In the forked child: serve one job, and end without running the zygote's exit handlers."""
    status = 1
    try:
        process.die_with_parent(parent)
        process.set_name("audiod-codec")
        _serve(sock)
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0  # the daemon wants no answer any more
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)


def _serve(sock: socket.socket) -> None:
    handle = os.pidfd_open(os.getpid())
    socket.send_fds(sock, [_encoder.encode(Started())], [handle])
    os.close(handle)
    packet, descriptors, _, _ = socket.recv_fds(sock, PACKET_BYTES, 2)
    if not packet:
        raise EOFError
    match _decoder.decode(packet):
        case Decode() as job:
            _confine(job.limits)
            _send(sock, _decode(sock, job, *descriptors))
        case Encode() as job:
            _confine(job.limits)
            _encode(sock, encoder.SpeechEncoder(job.format, job.rate_hz, job.tempo))
        case Listen() as job:
            detector = vad.SpeechDetector() if job.detect else None  # it reads its weights from a file
            _confine(job.limits)
            _listen(sock, hearing.Hearing(job.format, detector))
        case other:
            raise TypeError(f"{other!r} is no job")


def _confine(limits: Limits) -> None:
    """Take the process's rights away, before it sees a byte of a user's.

    With RLIMIT_NOFILE at 0 what is open stays open, and no file, socket or pipe can be opened any more: an input that
    names other files or addresses cannot have them read, whatever FFmpeg does. (poll(2) fails too; nobody here polls.)
    """
    process.forbid_new_privileges()
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123  the lightest way
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    for kind, value in (
        (resource.RLIMIT_AS, mapped + limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _decode(sock: socket.socket, job: Decode, source: int, target: int) -> Decoded | Refused:
    try:
        announce = partial(_announce, sock)
        return Decoded(decoder.decode(source, target, job.max_audio_s, announce, job.rate_hz))
    except (BrokenPipeError, ConnectionResetError):
        raise  # the daemon wants no answer any more
    except AudiodError as error:
        return Refused(error.body())
    except MemoryError:
        size = f"{job.limits.memory_bytes / 2**20:.0f} MiB"
        return Refused(BadAudio(f"decoding the file takes more than {size} of memory", param="file").body())
    except Exception:
        # FFmpeg and PyAV have more ways to fail on a broken file than can be listed; the log has this one.
        traceback.print_exc(file=sys.stderr)
        return Refused(BadAudio("the file cannot be decoded", param="file", hint="ffprobe FILE").body())


def _announce(sock: socket.socket, samples: int) -> None:
    _send(sock, Decoding(samples))


def _encode(sock: socket.socket, speech: encoder.SpeechEncoder) -> None:
    while True:
        packet = sock.recv(PACKET_BYTES)
        if not packet:
            raise EOFError
        match _decoder.decode(packet):
            case Feed() as feed:
                _answer(sock, speech.feed(feed.pcm))
            case Finish():
                _answer(sock, speech.finish())
                return
            case other:
                raise TypeError(f"{other!r} is not for an encoder")


def _listen(sock: socket.socket, ear: hearing.Hearing) -> None:
    while True:
        packet = sock.recv(PACKET_BYTES)
        if not packet:
            raise EOFError
        match _decoder.decode(packet):
            case Hear() as piece:
                _send(sock, Heard(*ear.feed(piece.audio)))
            case Flush():
                _send(sock, Heard(*ear.flush()))
            case other:
                raise TypeError(f"{other!r} is not for who listens")


def _answer(sock: socket.socket, data: bytes) -> None:
    while len(data) > PIECE_BYTES:
        _send(sock, Encoded(data[:PIECE_BYTES], more=True))
        data = data[PIECE_BYTES:]
    _send(sock, Encoded(data))


def _send(sock: socket.socket, message: FromProcess) -> None:
    sock.sendall(_encoder.encode(message))


if __name__ == "__main__":
    sys.exit(main())
