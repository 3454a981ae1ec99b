"""``mechxai completion``: what a shell offers behind TAB.

Hydra has a completion of its own, which imports the application and composes its configuration for every TAB: seconds.
This one reads the names of the configuration's files and imports nothing heavy.
"""

from collections.abc import Callable, Iterable, Sequence

from mechxai.cli import console
from mechxai.core.errors import ConfigError, nearest
from mechxai.sweeps.config_files import LAUNCHERS, choices_of, chosen, group_of, groups, settings

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


def completion(arguments: Sequence[str], commands: Iterable[str]) -> int:
    """``mechxai completion bash | zsh | fish``: the script that a shell's start file evaluates; returns the exit code.

    Args:
        arguments: the shell; or ``candidates -- WORD ...``, which the scripts ask with all words up to the cursor.
        commands: of the command line.

    Raises:
        ConfigError: no such shell.
    """
    if arguments[:2] == ["candidates", "--"]:
        for one in candidates(arguments[2:], commands):
            console.show(one)
        return 0
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        raise ConfigError(
            f"mechxai completion {' '.join(arguments)} was asked",
            allowed=nearest(arguments[0] if arguments else "", SCRIPTS),
            fix='put eval "$(mechxai completion bash)" into ~/.bashrc',
        )
    console.show(SCRIPTS[arguments[0]])
    return 0


def candidates(words: Sequence[str], commands: Iterable[str]) -> list[str]:
    """What the last word may become.

    Args:
        words: behind ``mechxai``, the last one begun or empty.
        commands: of the command line.
    """
    *before, current = words or [""]
    if not before:
        return _begun(current, commands)
    of_command: dict[str, Callable[[Sequence[str], str], Iterable[str]]] = {
        "run": _of_run,
        "methods": lambda _, __: ("--markdown", *choices_of("method")),
        "tasks": lambda _, __: choices_of("task"),
        "explain": lambda _, __: choices_of("method"),
        "runs": lambda seen, _: _RUNS if len(seen) == 1 else (),
        "explore": lambda _, own: _values("model", own, {}) if own.startswith("model=") else _EXPLORE,
        "completion": lambda _, __: SCRIPTS,
        "report": lambda _, __: ("-o",),
    }
    found = of_command[before[0]](before, current) if before[0] in of_command else ()
    return _begun(current, found)


def _of_run(before: Sequence[str], current: str) -> Iterable[str]:
    if before[-1] in _FLAG_VALUES:
        return _FLAG_VALUES[before[-1]]
    if current.startswith("-"):
        return _FLAGS
    places = _places(before)
    key, equals, _ = current.partition("=")
    return _values(key, current, places) if equals else _keys(key, places)


def _places(before: Sequence[str]) -> dict[str, str]:
    """Place in the configuration -> what is chosen there, as far as the words tell."""
    split = (word.strip("'\"").partition("=") for word in before)
    asked = {key: value for key, equals, value in split if equals}
    return chosen(asked.get("experiment", "")) | {group: asked[group] for group in groups() if group in asked}


def _keys(begun: str, places: dict[str, str]) -> list[str]:
    """Keys to override: groups and plain keys first, a place's own once its name is written out."""
    place = next((place for place in places if begun.startswith(f"{place}.")), None)
    if place is not None:
        return [f"{place}.{key}=" for key in settings(group_of(place), places[place].split(",")[0])]
    parts = [f"{place}." for place in places if settings(group_of(place), places[place].split(",")[0])]
    plain = [f"{key}=" for key, setting in settings("", "run").items() if setting.value != "{}"]
    return [*(f"{group}=" for group in groups()), "hydra/launcher=", *plain, *parts]


def _values(key: str, current: str, places: dict[str, str]) -> list[str]:
    """``key=value`` for every value there is; of a sweep's list, its last one."""
    place, _, last = key.rpartition(".")
    if key == "hydra/launcher":
        values: Sequence[str] = tuple(LAUNCHERS)
    elif key in groups():
        values = choices_of(key)
    elif place in places:
        own = settings(group_of(place), places[place].split(",")[0])
        values = own[last].allowed if last in own else ()
    else:
        plain = settings("", "run")
        values = plain[key].allowed if key in plain else ()
    written = current[: max(current.rfind(","), current.find("=")) + 1]
    return [written + value for value in values]


def _begun(current: str, found: Iterable[str]) -> list[str]:
    return [one for one in found if one.startswith(current)]
