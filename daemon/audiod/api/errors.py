"""Errors as HTTP: the OpenAI envelope with all four keys, status and retry headers, in this one place.

Knows no endpoint. The types are those OpenAI sends; SDKs choose their exception class by the status alone.
"""

from __future__ import annotations

import math
from http import HTTPStatus

import msgspec
from aiohttp import web

from audioproto.errors import AudiodError, BadRequest, MethodNotAllowed, NotFound, Unavailable, UploadTooLarge


class ErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None
    position: int | msgspec.UnsetType = msgspec.UNSET
    """Ours, not OpenAI's: the place in the queue, from 1."""


class ErrorEnvelope(msgspec.Struct):
    error: ErrorDetail


def _type_of(status: int) -> str:
    match status:
        case 401:
            return "authentication_error"
        case 403:
            return "permission_error"
        case 404:
            return "not_found_error"
        case 429:
            return "rate_limit_error"
        case _ if status < 500:
            return "invalid_request_error"
        case _:
            return "server_error"


def envelope(error: AudiodError) -> bytes:
    """The JSON body for `error`; the hint is part of the message, because SDKs show nothing else."""
    message = f"{error.message} (try: {error.hint})" if error.hint else error.message
    position = msgspec.UNSET if error.position is None else error.position
    detail = ErrorDetail(message, _type_of(error.http_status), error.param or None, error.code, position)
    return msgspec.json.encode(ErrorEnvelope(detail))


def response(error: AudiodError) -> web.Response:
    """The HTTP answer for `error`. A 5xx that a second try cannot help says so, or SDKs would send it three times."""
    answer = web.Response(status=error.http_status, body=envelope(error), content_type="application/json")
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        answer.headers["Allow"] = ", ".join(error.allowed)
    if error.retry_after_s is not None:
        answer.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
        answer.headers["retry-after-ms"] = str(max(1, math.ceil(error.retry_after_s * 1000)))
    if error.http_status == HTTPStatus.REQUEST_TIMEOUT:
        answer.force_close()  # the rest of the request could not be told from the next one
    if error.http_status >= 500 and not isinstance(error, Unavailable):
        answer.headers["x-should-retry"] = "false"
    return answer


def from_http(error: web.HTTPException) -> AudiodError:
    """aiohttp's own refusals (no such route, wrong method, body too large, bad request) as ours."""
    match error.status:
        case 404:
            return NotFound("there is no such path; the API's paths begin with /v1/")
        case 405:
            allowed = sorted(getattr(error, "allowed_methods", ()))
            refusal = MethodNotAllowed(f"this path does not take that method; it takes {', '.join(allowed)}")
            refusal.allowed = allowed
            return refusal
        case 413:
            return UploadTooLarge("the request's body is larger than this path takes")
        case status if status < 500:
            return BadRequest(error.reason or HTTPStatus(status).phrase)
        case _:
            return AudiodError(error.reason)
