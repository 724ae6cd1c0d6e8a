"""Who may ask for what: the key that a request carries, the paths that need none, and the pages that may open sockets.

Which keys are right is api/auth.py's to say; what browsers of other pages may read is api/cors.py's.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from audiod.api import auth, cors
from audiod.api.services import KEY, SERVICES
from audioproto.errors import PermissionDenied

_NEEDS_KEY = "/v1/"
"""Health and metrics are for machines that watch, and name nothing but models."""

NAMES = frozenset({"/v1/audio/models", "/v1/audio/voices"})
"""Lists of names, which clients that send a key elsewhere ask for without one (Open WebUI); see `server.open_names`."""

_TEMPORARY = "ek_"
_TAKES_TEMPORARY = frozenset({"/v1/realtime"})

_IN_SUBPROTOCOL = "openai-insecure-api-key."
"""How browsers send a key, whose WebSockets have no headers (openai-node, realtime/websocket.ts)."""


def credential_of(request: web.Request) -> str:
    """The key that a request carries, in its Authorization header or among its WebSocket subprotocols; else ""."""
    scheme, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    for header in request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ()):
        for protocol in header.split(","):
            if protocol.strip().startswith(_IN_SUBPROTOCOL):
                return protocol.strip().removeprefix(_IN_SUBPROTOCOL)
    return ""


def check(request: web.Request) -> None:
    """Note the name of the request's key. Raises Unauthorized and PermissionDenied."""
    if not request.path.startswith(_NEEDS_KEY):
        return
    services = request.app[SERVICES]
    if not services.keys:
        _check_page(request)
        return
    key = credential_of(request)
    name = services.keys.name_of(key)
    if key.startswith(_TEMPORARY) and request.path in _TAKES_TEMPORARY:
        name = name or services.temporary_keys.name_of(key)
    if name:
        request[KEY] = name
    elif key or hdrs.AUTHORIZATION in request.headers or not _lists_names(request):
        raise auth.refusal()


def is_known(request: web.Request) -> bool:
    """Whether whoever asks may see more than names: has a key, or is where none is needed."""
    return KEY in request or not request.app[SERVICES].keys


def _lists_names(request: web.Request) -> bool:
    is_read = request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
    return is_read and request.path in NAMES and request.app[SERVICES].config.server.open_names


def _check_page(request: web.Request) -> None:
    """Refuse a WebSocket that some page of the web opens in a browser here, where no key stops it.

    Browsers keep other pages from reading plain answers (CORS), but not from WebSockets.
    """
    origin = request.headers.get(hdrs.ORIGIN, "")
    if not origin or request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
        return
    page = urlsplit(origin)
    allowed = request.app[SERVICES].config.server.cors_origins
    if page.netloc != request.host and not _is_loopback(page.hostname or "") and not cors.allows(allowed, origin):
        raise PermissionDenied(f"pages of {origin[:200]} may not use this server", hint="add it to server.cors_origins")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
