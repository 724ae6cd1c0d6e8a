"""Log lines: journal entries with fields, text for people, or one JSON object a line; each with its request and model.

Configures the standard library's logging and nothing else. Secrets never get here: no body or header is logged.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar

from aiohttp.http_exceptions import HttpProcessingError
from logging_journald import JournaldTransport, check_journal_stream

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that the running task serves, if any."""

_FIELDS = ("model", "status", "seconds", "key")
"""What callers may add with `extra`; the journal has them in capitals, with AUDIOD_ before."""

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Of syslog(3); what is below all of them is debug, 7."""


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        identity = request_id.get()
        return super().format(record) + (f" [{identity}]" if identity else "")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _extras(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Journal(logging.Handler):
    """The journal's own protocol, so that `journalctl AUDIOD_MODEL=hibari PRIORITY=3` finds what it should."""

    def __init__(self) -> None:
        super().__init__()
        # Not connected: it would stay with the socket of a journal that has been restarted since.
        self._transport = JournaldTransport(connected=False)
        self._transport.socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + (self.formatter or logging.Formatter()).formatException(record.exc_info)
        fields = [
            ("MESSAGE", message),
            ("PRIORITY", next((number for level, number in _PRIORITIES if record.levelno >= level), 7)),
            ("SYSLOG_IDENTIFIER", "audiod"),
            ("CODE_FILE", record.pathname),
            ("CODE_LINE", record.lineno),
            ("CODE_FUNC", record.funcName),
            ("AUDIOD_LOGGER", record.name),
            *((f"AUDIOD_{name.upper()}", value) for name, value in _extras(record).items()),
        ]
        try:
            self._transport.send(fields)
        except OSError:
            # A journal that is full or away: standard error is kept by whoever started us.
            print(message, file=sys.stderr)


def _calmer(record: logging.LogRecord) -> bool:
    """What a port scanner sends is no error of ours: a line instead of a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args, record.exc_info = f"a malformed HTTP request: {error.message!r}", (), None
    return True


def _extras(record: logging.LogRecord) -> dict[str, object]:
    found = {name: getattr(record, name) for name in _FIELDS if getattr(record, name, "") != ""}
    return ({"request_id": request_id.get()} if request_id.get() else {}) | found


def configure(level: str, style: str) -> None:
    """Send everything to one place. `style` is text, json, journal, or auto: the journal where it is standard error."""
    if style == "auto":
        style = "journal" if check_journal_stream() else "text"
    handler: logging.Handler
    if style == "journal":
        handler = _Journal()
    else:
        handler = logging.StreamHandler(sys.stderr)
        text = _Text("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
        handler.setFormatter(_Json() if style == "json" else text)
    root = logging.getLogger()
    for old in root.handlers:
        old.close()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(_calmer)
