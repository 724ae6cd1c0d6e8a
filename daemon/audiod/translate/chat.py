"""Translates texts through an OpenAI-compatible chat endpoint: bounded, tried again with care, its key never told.

What is asked and what an answer means is cues.py's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec

from audiod import config
from audiod.tasks import first_failure
from audiod.translate import cues
from audioproto.errors import AudiodError, ConfigInvalid, TranslatorFailed, TranslatorUnavailable

logger = logging.getLogger(__name__)

_AT_A_TIME = 4
"""Pieces of one transcript that are asked for at once."""

_TRIES = 3
_FIRST_PAUSE_S = 0.5
_OURS = aiohttp.ClientTimeout(total=None, sock_connect=10)
"""The time in all is ours to watch."""

_ANSWER_BYTES = 1024 * 1024
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
_REFUSING_US = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
"""Answers of these statuses may repeat parts of the key, so they are not logged."""

_LOOK = "check [translate] in audiod.toml, and the endpoint itself"


class _Message(msgspec.Struct):
    content: object = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _Passing(Exception):
    """This try failed; the next one, not before `pause_s`, may not."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class Translator:
    """The endpoint as configured; false where there is none. Immutable: a reload makes a new one."""

    def __init__(self, settings: config.Translate, key: str = "") -> None:
        self._settings = settings
        self._key = key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._timeout_s = None if settings.timeout < 0 else float(settings.timeout)

    @classmethod
    def read(cls, settings: config.Translate) -> Translator:
        """With the key from its file. Reads the disk. Raises ConfigInvalid."""
        if not settings.base_url:
            return cls(settings)
        if urlsplit(settings.base_url).scheme not in ("http", "https") or not urlsplit(settings.base_url).netloc:
            raise ConfigInvalid("translate.base_url must be like http://HOST:PORT/v1")
        if not settings.model:
            raise ConfigInvalid("translate.model is empty; the chat endpoint wants to be told a model")
        if not settings.key_file:
            return cls(settings)
        try:
            key = Path(settings.key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            hint = f"ls -l {settings.key_file}"
            raise ConfigInvalid(f"cannot read the key in {settings.key_file}: {reason}", hint=hint) from error
        if len(key.split()) != 1 or not key.isascii():
            raise ConfigInvalid(f"{settings.key_file} must hold one key and nothing else")
        return cls(settings, key)

    def __bool__(self) -> bool:
        return bool(self._settings.base_url)

    async def translate(self, texts: Sequence[str], target: str) -> list[str]:
        """Each of `texts` in the language of the tag `target`, at its place; one that the model cannot do, as it was.

        Raises TranslatorUnavailable, and TranslatorFailed where the endpoint refuses, or translates none at all.
        """
        translated: dict[int, str] = {}
        turn = asyncio.Semaphore(_AT_A_TIME)
        language = cues.name_of(target)
        asked = 0

        async def one(session: aiohttp.ClientSession, piece: dict[int, str]) -> None:
            async with turn:
                translated.update(await self._piece(session, piece, language))

        async with aiohttp.ClientSession(headers=self._headers, timeout=_OURS) as session, first_failure() as tasks:
            for piece in cues.pieces(texts):
                asked += len(piece)
                tasks.create_task(one(session, piece), name="translate")
        if asked and not translated:
            message = f"the model {self._settings.model} at the chat endpoint answers nothing that is a translation"
            raise TranslatorFailed(message, hint="choose another translate.model")
        if left := asked - len(translated):
            logger.warning("%d of %d cues stay as they were: %s did not translate them", left, asked, self._url)
        return [translated.get(place, text) for place, text in enumerate(texts)]

    async def _piece(self, session: aiohttp.ClientSession, piece: dict[int, str], language: str) -> dict[int, str]:
        """What the model makes of a piece; what is missing is asked for once more."""
        done: dict[int, str] = {}
        for _ in range(2):
            missing = [place for place in piece if place not in done]
            if not missing:
                break
            texts = [piece[place] for place in missing]
            answer = await self._ask(session, cues.messages(texts, language))
            done |= {missing[number]: text for number, text in cues.read_answer(answer, texts).items()}
        return done

    async def _ask(self, session: aiohttp.ClientSession, messages: list[dict[str, str]]) -> str:
        """The model's answer, "" where the endpoint's is of another kind; tried again while it may help."""
        reason = ""
        try:
            async with asyncio.timeout(self._timeout_s):
                for attempt in range(_TRIES):
                    try:
                        return await self._post(session, messages)
                    except _Passing as error:
                        reason = str(error)
                        if attempt < _TRIES - 1:
                            await asyncio.sleep(error.pause_s or _FIRST_PAUSE_S * 2**attempt)
        except TimeoutError:
            late = f"the chat endpoint for translations gave no answer within {self._timeout_s:g} s"
            reason = f"{late}: {reason}" if reason else late
        raise TranslatorUnavailable(reason, hint=_LOOK, retry_after_s=5)

    async def _post(self, session: aiohttp.ClientSession, messages: list[dict[str, str]]) -> str:
        body = msgspec.json.encode({"model": self._settings.model, "messages": messages, "stream": False})
        headers = {"Content-Type": "application/json"}
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                content = await answer.content.read(0)
                while len(content) <= _ANSWER_BYTES and (more := await answer.content.readany()):
                    content += more
        except aiohttp.InvalidURL as error:
            raise TranslatorFailed(f"{self._url} is no URL", hint=_LOOK) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            kind = type(error).__name__
            raise _Passing(f"the chat endpoint for translations cannot be reached: {kind}") from error
        if answer.status == HTTPStatus.OK:
            return _content(content)
        raise self._refusal(answer, content)

    def _refusal(self, answer: aiohttp.ClientResponse, content: bytes) -> AudiodError | _Passing:
        status = answer.status
        message = f"the chat endpoint for translations answers {status} {_phrase(status)}"
        if status >= 500 or status in _PASSING:
            return _Passing(message, _pause_s(answer.headers.get("Retry-After", "")))
        if status not in _REFUSING_US:
            told = content[:500].decode(errors="replace")
            logger.warning("%s: %s", message, told.replace(self._key, "KEY") if self._key else told)
        return TranslatorFailed(message, hint=_LOOK)


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else ""


def _pause_s(header: str) -> float | None:
    """Of a Retry-After in seconds; None for a date, which chat endpoints do not send, and for nonsense."""
    return float(header) if header.isascii() and header.isdigit() and len(header) < 6 else None


def _content(body: bytes) -> str:
    try:
        completion = msgspec.json.decode(body, type=_Completion)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    content = completion.choices[0].message.content if completion.choices else ""
    if isinstance(content, list):  # parts, as some servers write it
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
