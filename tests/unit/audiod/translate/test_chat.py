"""The translator against a chat endpoint that does all that such endpoints do."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiod import config
from audiod.translate.chat import Translator
from audiod.units import Duration
from audioproto.errors import ConfigInvalid, TranslatorFailed, TranslatorUnavailable
from chats import Chat, chatting

TEXTS = [" Hello.", "", " How are you?", " Bye --> bye."]
GOOD = ["de:Hello.", "", "de:How are you?", "de:Bye -> bye."]
KEY = "sk-very-secret"


@pytest.fixture
def chat() -> Iterator[Chat]:
    with chatting() as one:
        yield one


def translator(chat: Chat, timeout_s: float = 30) -> Translator:
    return Translator(config.Translate(chat.url, "translator", "", Duration(timeout_s)), KEY)


@pytest.mark.parametrize(
    "script",
    [
        ["good"],
        ["fenced"],
        ["shuffled"],
        ["truncated", "good"],
        ["garbage", "good"],
        ["other", "good"],
        ["html", "shuffled"],
        ["nested", "good"],
        ["429 0", "fenced"],
        ["500", "good"],
        ["hang up", "good"],
    ],
    ids=" then ".join,
)
async def test_a_translation_comes_about(chat: Chat, script: list[str]) -> None:
    chat.script = list(script)
    assert await translator(chat).translate(TEXTS, "de") == GOOD
    assert chat.script == []
    assert "German" in chat.systems[0]
    assert chat.asked[0] == [(1, "Hello."), (2, "How are you?"), (3, "Bye -> bye.")]
    assert chat.headers[0]["Authorization"] == f"Bearer {KEY}"


async def test_only_what_is_missing_is_asked_for_again(chat: Chat) -> None:
    chat.script = ["truncated"]
    assert await translator(chat).translate(TEXTS, "de") == GOOD
    assert chat.asked[1:] == [[(1, "Bye -> bye.")]]


async def test_a_cue_that_is_never_translated_stays_as_it_was(chat: Chat, caplog: pytest.LogCaptureFixture) -> None:
    chat.script = ["truncated", "garbage"]
    assert await translator(chat).translate(TEXTS, "de") == [*GOOD[:3], TEXTS[3]]
    assert "1 of 3 cues stay as they were" in caplog.text


async def test_a_long_transcript_goes_in_pieces_and_comes_back_in_order(chat: Chat) -> None:
    texts = [f"number {n}" for n in range(90)]
    chat.script = ["shuffled", "500", "429 0"]
    assert await translator(chat).translate(texts, "de") == [f"de:{text}" for text in texts]
    assert max(map(len, chat.asked)) == 20


async def test_nothing_to_say_asks_nobody(chat: Chat) -> None:
    assert await translator(chat).translate([], "de") == []
    assert await translator(chat).translate([" "], "de") == [" "]
    assert chat.asked == []


async def test_nothing_but_nonsense_is_an_error(chat: Chat) -> None:
    chat.script = ["garbage", "empty"]
    with pytest.raises(TranslatorFailed, match="translator at the chat endpoint"):
        await translator(chat).translate(TEXTS, "de")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 307])
async def test_a_refusal_is_told_at_once_and_never_the_key(
    chat: Chat, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    chat.script = [str(status)]
    with pytest.raises(TranslatorFailed, match=str(status)) as failed:
        await translator(chat).translate(TEXTS, "de")
    assert len(chat.asked) == 1
    assert "audiod.toml" in failed.value.hint
    assert KEY not in failed.value.message + caplog.text


async def test_who_stays_busy_or_is_slow_is_given_up_in_time(chat: Chat) -> None:
    chat.script = ["429 0"] * 3
    with pytest.raises(TranslatorUnavailable, match="429"):
        await translator(chat).translate(TEXTS, "de")
    chat.script = ["hang"]
    with pytest.raises(TranslatorUnavailable, match=r"no answer within 0\.2 s"):
        await translator(chat, 0.2).translate(TEXTS, "de")
    chat.script = ["429 60"]
    with pytest.raises(TranslatorUnavailable, match=r"within 0\.2 s: .*429") as late:
        await translator(chat, 0.2).translate(TEXTS, "de")
    assert late.value.retry_after_s


async def test_who_is_not_there_is_said_to_be(chat: Chat) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = Chat(f"http://127.0.0.1:{nobody.getsockname()[1]}/v1")
        with pytest.raises(TranslatorUnavailable, match="cannot be reached"):
            await translator(away).translate(TEXTS, "de")


def test_the_key_comes_from_a_file(tmp_path: Path) -> None:
    key = tmp_path / "key"
    settings = config.Translate("http://localhost:1/v1", "m", str(key))
    for content, said in ((None, "cannot read"), (b"", "one key"), (b"two words", "one key"), (b"\xff", "UTF-8")):
        if content is not None:
            key.write_bytes(content)
        with pytest.raises(ConfigInvalid, match=said) as refused:
            Translator.read(settings)
        assert str(key) in refused.value.message
    key.write_text(f"{KEY}\n")
    assert Translator.read(settings)
    assert not Translator.read(config.Translate())


@pytest.mark.parametrize(
    ("settings", "said"),
    [(config.Translate("localhost/v1", "m"), "base_url"), (config.Translate("http://localhost/v1"), "translate.model")],
)
def test_what_cannot_work_is_refused_when_it_is_read(settings: config.Translate, said: str) -> None:
    with pytest.raises(ConfigInvalid, match=said):
        Translator.read(settings)


def test_the_credential_is_the_key_s_file(tmp_path: Path) -> None:
    (tmp_path / "translate-key").write_text(KEY)
    found = config.load(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert found.translate.key_file == str(tmp_path / "translate-key")
    assert found.server.api_keys_file == ""
