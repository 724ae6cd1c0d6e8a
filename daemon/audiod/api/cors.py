"""CORS: which pages of other origins may read answers in a browser. Off unless `server.cors_origins` names some.

Only adds headers and answers preflights; keys are needed as ever. aiohttp-cors wants every route registered with it and
leaves out errors and unknown paths, so it is not used.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import hdrs, web

EXPOSED = "x-request-id, retry-after, retry-after-ms, x-should-retry, x-estimated-cues"
"""What the SDKs read beside what browsers show anyway."""

_METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
_KEPT_S = 7200
"""How long a browser may remember a preflight: Chromium's own bound."""


def allows(origins: Sequence[str], origin: str) -> bool:
    """Whether a page of `origin` may read answers, where `origins` are configured."""
    return "*" in origins or origin in origins


def preflight(request: web.Request, origins: Sequence[str]) -> web.Response | None:
    """The answer to a browser that asks whether it may ask; None for any other request."""
    if request.method != hdrs.METH_OPTIONS or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
        return None
    if not allows(origins, request.headers.get(hdrs.ORIGIN, "")):
        return None
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    return web.Response(
        status=204,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
            # Not "*", which does not cover Authorization.
            **({hdrs.ACCESS_CONTROL_ALLOW_HEADERS: asked} if asked else {}),
            hdrs.ACCESS_CONTROL_MAX_AGE: str(_KEPT_S),
        },
    )


def stamp(request: web.BaseRequest, response: web.StreamResponse, origins: Sequence[str]) -> None:
    """Say on any answer, errors and streams too, who may read it."""
    if not origins:
        return
    origin = request.headers.get(hdrs.ORIGIN, "")
    if "*" in origins:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
    else:
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if origin not in origins:
            return
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
    response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED
