"""``mechxai completion``: completion of commands, configuration keys and values in bash, zsh and fish.

Hydra's own completion imports the application and composes its configuration for every TAB, which takes seconds.
This one reads the configuration's file names and the annotations of settings, and imports nothing heavy.
"""

from collections.abc import Callable, Iterable, Sequence

from mechxai.cli.console import OK, show
from mechxai.core.annotation import Annotation
from mechxai.core.errors import ConfigError, unknown
from mechxai.methods.catalog import catalog
from mechxai.sweeps.config_files import LAUNCHERS, choices_of, chosen, group_of, groups, is_block, settings, values_of

HELP = """Completion of commands, configuration keys, methods, models and tasks behind TAB.

  eval "$(mechxai completion bash)"     in ~/.bashrc; likewise zsh
  mechxai completion fish | source      in ~/.config/fish/config.fish"""

_BASH = """# eval "$(mechxai completion bash)", in ~/.bashrc
_mechxai() {
  local line="${COMP_LINE:0:COMP_POINT}" words last found
  read -ra words <<<"$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  last="${words[${#words[@]}-1]}"
  COMPREPLY=()
  while IFS= read -r found; do
    [[ "$found" == *[=./] ]] && compopt -o nospace 2>/dev/null
    # bash has split the word at these and replaces what is behind them alone
    [[ "$COMP_WORDBREAKS" == *=* && "$last" == *=* ]] && found="${found#"${last%"${last##*=}"}"}"
    COMPREPLY+=("$found")
  done < <("${words[0]}" completion candidates -- "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _mechxai mechxai"""

_ZSH = """# eval "$(mechxai completion zsh)", in ~/.zshrc
whence compdef >/dev/null || { autoload -Uz compinit && compinit -u }
_mechxai() {
  local -a found whole open
  found=("${(@f)$("${words[1]}" completion candidates -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  open=("${(@M)found:#*[=./]}")
  whole=("${(@)found:#*[=./]}")
  whole=("${(@)whole:#}")
  (( $#open )) && compadd -Q -S '' -- "${open[@]}"
  (( $#whole )) && compadd -Q -- "${whole[@]}"
  (( $#open + $#whole )) || _files
}
compdef _mechxai mechxai"""

_FISH = """# mechxai completion fish | source, in ~/.config/fish/config.fish
function __mechxai
  set -l words (commandline -opc) (commandline -ct)
  $words[1] completion candidates -- $words[2..-1] 2>/dev/null
end
complete -c mechxai -n 'not __fish_seen_subcommand_from report' -f -a '(__mechxai)'
complete -c mechxai -n '__fish_seen_subcommand_from report' -F -a '(__mechxai)'"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_FLAGS = ("--cfg", "--config-dir", "--config-name", "--help", "--hydra-help", "--info", "--multirun", "--package", "-m")
_FLAG_VALUES = {"--cfg": ("job", "hydra", "all"), "-c": ("job", "hydra", "all")}
_EXPLORE = ("model=", "run=", "lens=", "device=", "view=", "port=", "browser=false", "in=")
_RUNS = ("list", "show", "compare", "merge", "clean")


def main(arguments: Sequence[str]) -> int:
    """``mechxai completion bash | zsh | fish`` prints the script that a shell's start file evaluates.

    Args:
        arguments: the shell; or ``candidates -- WORD ...``, which the scripts call with all words up to the cursor.

    Returns:
        The exit code.

    Raises:
        ConfigError: no such shell.
    """
    from mechxai.cli.main import COMMANDS  # noqa: PLC0415 - the table of commands imports none of them

    if arguments[:2] == ["candidates", "--"]:
        for candidate in candidates(arguments[2:], COMMANDS):
            show(candidate)
        return OK
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        raise ConfigError(
            unknown("shell", " ".join(arguments), SCRIPTS), fix='Put eval "$(mechxai completion bash)" into ~/.bashrc'
        )
    show(SCRIPTS[arguments[0]])
    return OK


def candidates(words: Sequence[str], commands: Iterable[str]) -> list[str]:
    """What the last word may become.

    Args:
        words: after ``mechxai``; the last is the beginning of a word, or empty.
        commands: of the command line.
    """
    *before, current = words or [""]
    if not before:
        return _beginning_with(current, commands)
    by_command: dict[str, Callable[[Sequence[str], str], Iterable[str]]] = {
        "run": _run_candidates,
        "methods": lambda _, __: ("--markdown", *catalog()),
        "tasks": lambda _, __: choices_of("task"),
        "models": lambda _, __: (choice for choice in choices_of("model") if choice.startswith("zoo/")),
        "experiments": lambda _, __: choices_of("experiment"),
        "explain": lambda _, __: catalog(),
        "runs": lambda words, _: _RUNS if len(words) == 1 else (),
        "explore": lambda _, word: _values("model", word, {}) if word.startswith("model=") else _EXPLORE,
        "completion": lambda _, __: SCRIPTS,
        "report": lambda _, __: ("-o",),
    }
    complete = by_command.get(before[0])
    return _beginning_with(current, complete(before, current) if complete else ())


def _run_candidates(before: Sequence[str], current: str) -> Iterable[str]:
    if before[-1] in _FLAG_VALUES:
        return _FLAG_VALUES[before[-1]]
    if current.startswith("-"):
        return _FLAGS
    places = _places(before)
    key, equals, _ = current.partition("=")
    return _values(key, current, places) if equals else _keys(key, places)


def _places(before: Sequence[str]) -> dict[str, str]:
    """Place in the configuration -> its choice, as far as the words tell."""
    split = (word.strip("'\"").partition("=") for word in before)
    overrides = {key: value for key, equals, value in split if equals}
    own_choices = {group: overrides[group] for group in groups() if group in overrides}
    return chosen(overrides.get("experiment", "")) | own_choices


def _keys(beginning: str, places: dict[str, str]) -> list[str]:
    """Keys to override: groups and plain keys first; the keys of a place once its name is written out."""
    place = next((place for place in places if beginning.startswith(f"{place}.")), None)
    if place is not None:
        return [f"{place}.{key}=" for key in _settings(place, places)]
    prefixes = [f"{place}." for place in places if _settings(place, places)]
    plain = [f"{key}=" for key in settings("", "run") if not is_block("", "run", key)]
    return [*(f"{group}=" for group in groups()), "hydra/launcher=", *plain, *prefixes]


def _values(key: str, current: str, places: dict[str, str]) -> list[str]:
    """``key=value`` for every value; in a sweep's list, for its last one."""
    place, _, last = key.rpartition(".")
    if key == "hydra/launcher":
        values: Sequence[object] = tuple(LAUNCHERS)
    elif key in groups():
        values = choices_of(key)
    else:
        allowed = _settings(place, places) if place in places else settings("", "run")
        values = values_of(last, allowed[last]) if last in allowed and (place in places or not place) else ()
    written = current[: max(current.rfind(","), current.find("=")) + 1]
    return [f"{written}{value}" for value in values]


def _settings(place: str, places: dict[str, str]) -> dict[str, Annotation]:
    return settings(group_of(place), places[place].split(",")[0])


def _beginning_with(current: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(current)]
