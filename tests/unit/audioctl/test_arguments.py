"""The command line's grammar: where options may stand, what is refused, and that every verb is whole."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import audioctl.commands
from audioctl import arguments, commands, grammar
from audioproto.errors import BadRequest


def test_every_file_among_the_commands_is_a_verb() -> None:
    folder = Path(audioctl.commands.__file__).parent
    assert commands.verbs() == sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("verb", commands.verbs())
def test_the_help_of_a_verb_says_what_it_does_and_shows_its_examples(verb: str) -> None:
    command = commands.module_of(verb)
    shown = arguments.verb_parser(verb).format_help()
    assert f"{command.SUMMARY[1:]}." in shown
    assert command.EXAMPLES
    for line, meaning in command.EXAMPLES:
        assert f"  {line}\n      {meaning}\n" in shown


@pytest.mark.parametrize("verb", commands.verbs())
def test_the_examples_of_a_verb_are_valid_commands(verb: str) -> None:
    parsed = [arguments.parse(argv).verb for line, _ in commands.module_of(verb).EXAMPLES for argv in _calls(line)]
    assert verb in parsed


def _calls(line: str) -> list[list[str]]:
    """The arguments of each audioctl in a shell line; `eval "$(...)"` is looked into."""
    line = line.removeprefix('eval "$(').removesuffix(')"')
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&<>")
    lexer.commenters = ""
    calls: list[list[str]] = [[]]
    for word in lexer:
        if word.strip("|&<>"):
            calls[-1].append(word)
        else:
            calls.append([])
    return [call[1:] for call in calls if call[0] == "audioctl"]


@pytest.mark.parametrize("verb", commands.names())
def test_a_verb_explains_each_of_its_words(verb: str) -> None:
    found = next(each for each in grammar.verbs() if each.name == verb)
    assert all(word.meaning for word in (*found.options, *found.positionals))


def test_help_lists_every_verb() -> None:
    overview = arguments.overview()
    for verb in commands.verbs():
        assert f"\n  {verb:10}  {commands.module_of(verb).SUMMARY}\n" in overview


@pytest.mark.parametrize("argv", [["--json", "status"], ["status", "--json"], ["--json", "status", "--json"]])
def test_json_stands_before_or_after_the_verb(argv: list[str]) -> None:
    assert arguments.parse(argv).json


@pytest.mark.parametrize(
    "argv", [["--socket", "/s", "load", "x"], ["load", "--socket", "/s", "x"], ["load", "x", "--socket=/s"]]
)
def test_the_socket_stands_before_or_after_the_verb(argv: list[str]) -> None:
    given = arguments.parse(argv)
    assert (given.socket, given.verb, given.models) == ("/s", "load", ["x"])


def test_what_follows_the_verb_belongs_to_it() -> None:
    given = arguments.parse(["unload", "--force", "--no-wait", "a", "b"])
    assert (given.force, given.wait, given.models) == (True, False, ["a", "b"])


def test_options_of_an_action_stand_where_one_likes() -> None:
    for argv in (["Anna", "a.wav", "--consent", "c.wav"], ["Anna", "--consent", "c.wav", "a.wav"]):
        given = arguments.parse(["voices", "add", *argv, "--json"])
        assert (given.action, given.voice, given.file, given.consent) == ("add", "Anna", "a.wav", "c.wav")
        assert given.json
    assert [arguments.parse(argv).action for argv in (["voices"], ["voices", "--json"], ["voices", "list"])] == [
        "", "", "list"
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in commands.names() if " " in name])
def test_the_help_of_an_action_has_its_own_options_alone(name: str) -> None:
    verb, _, action = name.partition(" ")
    assert f"\n  {action:7} {commands.named(name).summary}\n" in arguments.verb_parser(verb).format_help()
    shown = arguments.verb_parser(name).format_help()
    for option, owners in (("--consent", ("add",)), ("--seed", ("say",)), ("--url", tuple(commands.actions_of(verb)))):
        assert (f"  {option} " in shown) == (action in owners)
    for line, _ in commands.named(name).examples:
        assert all(arguments.parse(argv).verb == verb for argv in _calls(line))


def test_watch_takes_a_number_or_none() -> None:
    assert arguments.parse(["status"]).watch is None
    assert arguments.parse(["status", "--watch"]).watch == 1.0
    assert arguments.parse(["status", "--watch", "0.2"]).watch == 0.2


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        ([], "audioctl --help"),
        (["lod"], "audioctl load"),
        (["zzz"], "audioctl --help"),
        (["load"], "audioctl load --help"),
        (["load", "x", "--sock", "/s"], "audioctl load --help"),
        (["status", "--watch", "0"], "audioctl status --help"),
        (["status", "--watch", "nan"], "audioctl status --help"),
        (["say", "hello"], "audioctl say --help"),
        (["transcribe", "a.wav", "--format", "doc"], "audioctl transcribe --help"),
        (["config", "write"], "audioctl config --help"),
        (["completion", "tcsh"], "audioctl completion --help"),
        (["voices", "sing"], "audioctl voices --help"),
        (["voices", "list", "--seed", "3"], "audioctl voices list --help"),
        (["voices", "list", "Anna"], "audioctl voices list --help"),
        (["voices", "add", "Anna"], "audioctl voices add --help"),
        (["voices", "remove", "Anna", "--language", "en"], "audioctl voices remove --help"),
        (["voices", "say", "Anna", "Hello"], "audioctl voices say --help"),
        (["--wrong", "status"], "audioctl --help"),
    ],
)
def test_wrong_usage_is_refused_with_what_to_type_instead(argv: list[str], hint: str) -> None:
    with pytest.raises(BadRequest) as refused:
        arguments.parse(argv)
    assert refused.value.hint == hint
    assert refused.value.exit_status == 2


def test_a_flag_means_the_same_kind_of_thing_in_every_verb() -> None:
    """The bash completion skips the value of an option without knowing the verb yet."""
    takes_value: dict[str, bool] = {}
    for verb in grammar.verbs():
        for word in verb.options:
            for flag in word.flags:
                assert takes_value.setdefault(flag, bool(word.value)) == bool(word.value), f"{verb.name} {flag}"
