"""Completion scripts for bash, zsh and fish, written from the grammar: verbs, options, choices, files, models.

Model names are asked of the daemon at the time, by `audioctl models --names`; without a daemon there are none.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from audioctl.grammar import Verb, Word, global_options, verbs

ASK_MODELS = "audioctl models --names 2>/dev/null"
ASK_RUNTIMES = "audioctl runtime --names 2>/dev/null"

_FILES = ("FILE", "FILE|ID", "PATH")
_DIRECTORIES = ("DIRECTORY",)
_MODELS = ("MODEL",)
_RUNTIMES = ("RUNTIME",)


def script(shell: str) -> str:
    """The script for `bash`, `zsh` or `fish`."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _shared_options() -> list[Word]:
    """Global options that hold after a verb too."""
    return [word for word in global_options() if "--version" not in word.flags]


def _first_words() -> list[Verb]:
    return [verb for verb in verbs() if " " not in verb.name]


def _flags(words: list[Word]) -> str:
    return " ".join(flag for word in words for flag in word.flags)


# --- bash ---------------------------------------------------------------------------------------------------------

_BASH = f"""\
# bash completion for audioctl; printed by `audioctl completion bash`

_audioctl_words() {{
    mapfile -t COMPREPLY < <(compgen -W "$*" -- "$current")
}}

_audioctl_files() {{
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen "$1" -- "$current")
}}

# Not by compgen -W, which would expand what a name contains.
_audioctl_models() {{
    local name
    while IFS= read -r name; do
        [[ $name == "$current"* ]] && COMPREPLY+=("$name")
    done < <({ASK_MODELS})
}}

_audioctl_runtimes() {{
    _audioctl_words "$({ASK_RUNTIMES})"
}}

_audioctl() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} verb='' place=0 index word
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${{COMP_WORDS[index]}} in
            @valued@) ((index += 1)) ;;
            -*) ;;
            *)
                word=${{COMP_WORDS[index]}}
                case $verb:$word in
                    :*) verb=$word ;;
                    @actions@) verb+=" $word" ;;
                    *) ((place += 1)) ;;
                esac ;;
        esac
    done
    case $verb:$previous in
@values@
    esac
    if [[ $current == -* ]]; then
        case $verb in
@options@
        esac
        return
    fi
    case $verb:$place in
@positionals@
    esac
}}

complete -F _audioctl audioctl
"""


def _bash() -> str:
    everything = [*global_options(), *(option for verb in verbs() for option in verb.options)]
    valued = sorted({flag for word in everything if word.value and not word.optional for flag in word.flags})
    fills = {
        "valued": "|".join(valued),
        "actions": "|".join(f"{verb.name}:{action}" for verb in verbs() for action in verb.actions),
        "values": "\n".join(_bash_values()),
        "options": "\n".join(_bash_options()),
        "positionals": "\n".join(_bash_positionals()),
    }
    text = _BASH
    for name, lines in fills.items():
        text = text.replace(f"@{name}@", lines)
    return text


def _bash_values() -> Iterator[str]:
    valued = [("*", word) for word in _shared_options()]
    valued += [(verb.name, word) for verb in verbs() for word in verb.options]
    for verb_name, word in valued:
        if word.value and not word.optional:
            places = (f"{verb_name if verb_name == '*' else shlex.quote(verb_name)}:{flag}" for flag in word.flags)
            yield f"        {'|'.join(places)}) {_bash_action(word)}; return ;;"


def _bash_options() -> Iterator[str]:
    yield f"            '') _audioctl_words {_flags(global_options())} ;;"
    for verb in verbs():
        yield f"            {shlex.quote(verb.name)}) _audioctl_words {_flags([*verb.options, *_shared_options()])} ;;"


def _bash_positionals() -> Iterator[str]:
    yield f"        :*) _audioctl_words {' '.join(verb.name for verb in _first_words())} ;;"
    for verb in verbs():
        for place, word in enumerate(verb.positionals):
            at = "*" if word.repeated else place
            yield f"        {shlex.quote(verb.name)}:{at}) {_bash_action(word)} ;;"


def _bash_action(word: Word) -> str:
    if word.choices:
        return f"_audioctl_words {' '.join(word.choices)}"
    if word.value in _MODELS:
        return "_audioctl_models"
    if word.value in _RUNTIMES:
        return "_audioctl_runtimes"
    if word.value in _FILES:
        return "_audioctl_files -f"
    return "_audioctl_files -d" if word.value in _DIRECTORIES else ":"


# --- zsh ----------------------------------------------------------------------------------------------------------

_ZSH = f"""\
#compdef audioctl
# zsh completion for audioctl; printed by `audioctl completion zsh`

_audioctl_models() {{
    local -a names
    names=(${{(f)"$({ASK_MODELS})"}})
    compadd -a names
}}

_audioctl_runtimes() {{
    local -a names
    names=(${{(f)"$({ASK_RUNTIMES})"}})
    compadd -a names
}}

_audioctl() {{
    local context state state_descr line
    local -A opt_args
    local -a commands shared
    commands=(
@commands@
    )
    shared=(
@shared@
    )
    _arguments -C $shared \\
@version@
        '1:command:->command' \\
        '*::argument:->argument'
    case $state in
        command) _describe -t commands command commands ;;
        argument)
            case $line[1] in
@verbs@
            esac ;;
    esac
}}

if [[ $funcstack[1] == _audioctl ]]; then
    _audioctl "$@"
else
    compdef _audioctl audioctl
fi
"""


def _zsh() -> str:
    indent = " " * 8
    fills = {
        "commands": "\n".join(indent + shlex.quote(f"{verb.name}:{verb.summary}") for verb in _first_words()),
        "shared": "\n".join(indent + spec for word in _shared_options() for spec in _zsh_option(word)),
        "version": "\n".join(
            f"{indent}{spec} \\"
            for word in global_options()
            if word not in _shared_options()
            for spec in _zsh_option(word)
        ),
        "verbs": "\n".join(_zsh_verb(verb, " " * 16) for verb in _first_words()),
    }
    text = _ZSH
    for name, lines in fills.items():
        text = text.replace(f"@{name}@", lines)
    return text


def _zsh_verb(verb: Verb, indent: str) -> str:
    if verb.actions:
        actions = [each for each in verbs() if each.name.startswith(f"{verb.name} ")]
        inner = [_zsh_verb(each, f"{indent}            ") for each in actions]
        lines = [
            f"{verb.name})",
            f"    if (( CURRENT > 2 )) && [[ $words[2] == ({'|'.join(verb.actions)}) ]]; then",
            "        shift words",
            "        (( CURRENT -= 1 ))",
            "        case $words[1] in",
            *(each.removeprefix(indent) for each in inner),
            "        esac",
            "    else",
            f"        {_zsh_arguments(verb, f'{indent}            ')}",
            "    fi ;;",
        ]
        return "\n".join(indent + line for line in lines)
    return f"{indent}{verb.name.rpartition(' ')[2]}) {_zsh_arguments(verb, f'{indent}    ')} ;;"


def _zsh_arguments(verb: Verb, indent: str) -> str:
    specs = [spec for word in verb.options for spec in _zsh_option(word)]
    for place, word in enumerate(verb.positionals, 1):
        where = "*" if word.repeated else f"{place}:" if word.optional else str(place)
        specs.append(shlex.quote(f"{where}:{_zsh_message(word)}:{_zsh_action(word)}"))
    return f" \\\n{indent}".join(["_arguments $shared", *specs])


def _zsh_option(word: Word) -> Iterator[str]:
    meaning = word.meaning.replace("[", "\\[").replace("]", "\\]")
    others = "*" if word.repeated else f"({' '.join(word.flags)})" if len(word.flags) > 1 else ""
    for flag in word.flags:
        if not word.value:
            yield shlex.quote(f"{others}{flag}[{meaning}]")
            continue
        joined = "=" if flag.startswith("--") else "+"
        colon = "::" if word.optional else ":"
        argument = f"{colon}{_zsh_message(word)}:{_zsh_action(word)}"
        yield shlex.quote(f"{others}{flag}{'' if word.optional else joined}[{meaning}]{argument}")


def _zsh_message(word: Word) -> str:
    return (word.value if not word.choices else "choice").lower()


def _zsh_action(word: Word) -> str:
    if word.choices:
        return f"({' '.join(word.choices)})"
    if word.value in _MODELS:
        return "_audioctl_models"
    if word.value in _RUNTIMES:
        return "_audioctl_runtimes"
    if word.value in _FILES:
        return "_files"
    return "_files -/" if word.value in _DIRECTORIES else " "


# --- fish ---------------------------------------------------------------------------------------------------------


def _fish() -> str:
    lines = ["# fish completion for audioctl; printed by `audioctl completion fish`", "", "complete -c audioctl -f"]
    lines += [
        _fish_option(word, "" if word in _shared_options() else "__fish_use_subcommand") for word in global_options()
    ]
    for verb in verbs():
        first, _, second = verb.name.partition(" ")
        seen = f"__fish_seen_subcommand_from {first}"
        if second:
            seen += f"; and __fish_seen_subcommand_from {second}"
            lines.append("")
        else:
            lines += ["", _fish_line("__fish_use_subcommand", ["-a", verb.name, "-d", verb.summary])]
        lines += [_fish_option(word, seen) for word in verb.options]
        for word in verb.positionals:
            condition = seen
            if word.choices:
                chosen = f"__fish_seen_subcommand_from {' '.join(word.choices)}"
                condition, seen = f"{seen}; and not {chosen}", f"{seen}; and {chosen}"
            if action := _fish_action(word):
                lines.append(_fish_line(condition, action))
    return "\n".join(lines) + "\n"


def _fish_option(word: Word, condition: str) -> str:
    names = [part for flag in word.flags for part in (("-l", flag[2:]) if flag.startswith("--") else ("-s", flag[1:]))]
    if word.value and not word.optional:
        action = _fish_action(word)
        names += ["-r" if "-F" in action else "-x", *action]  # -x: no files beside what is offered
    return _fish_line(condition, [*names, "-d", word.meaning])


def _fish_action(word: Word) -> list[str]:
    if word.choices:
        return ["-a", " ".join(word.choices)]
    if word.value in _MODELS:
        return ["-a", f"({ASK_MODELS})"]
    if word.value in _RUNTIMES:
        return ["-a", f"({ASK_RUNTIMES})"]
    if word.value in _FILES:
        return ["-F"]
    return ["-a", "(__fish_complete_directories)"] if word.value in _DIRECTORIES else []


def _fish_line(condition: str, words: list[str]) -> str:
    where = ["-n", condition] if condition else []
    return " ".join(["complete -c audioctl", *(_fish_quote(word) for word in (*where, *words))])


def _fish_quote(word: str) -> str:
    """Not shlex.quote: inside single quotes fish reads \\' and \\\\, and knows no '\"'\"'."""
    if word.replace("-", "").replace("_", "").isalnum():
        return word
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
