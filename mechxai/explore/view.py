"""What is shown, as a value: it travels in the page's address, so that a link shows the same to anyone."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from urllib.parse import urlencode

from mechxai.core.errors import ConfigError, check_choice

MOST_CHARACTERS = 20_000
COLORS = ("top_logprob", "answer_logprob", "answer_rank", "entropy", "kl_to_final")
INPUTS = ("attention", "gradient_x_input", "saliency", "occlusion")
SITES = ("resid_pre", "attn_out", "mlp_out", "z")
LENSES = ("logit", "tuned")
_CHOICES = {"color": COLORS, "inputs": INPUTS, "site": SITES, "lens": LENSES}


@dataclass(frozen=True)
class View:
    """One prompt, one place in it, and how it is looked at.

    Attributes:
        model: by the name under which the explorer knows it; empty for its first.
        prompt: the text that is read.
        corrupted: its counterpart, of as many tokens; empty where there is none.
        answer: the token asked about, as it would be appended; empty for the model's first choice at ``pos``.
        wrong: what it is set against; empty for the model's next choice.
        pos: the position that is looked at, negative from the end; -1 is where the prompt's next token is said.
        layer: the layer, of ``n_layers + 1``: the last is the model's own output; negative from the end.
        head: the head of that layer.
        lens: ``logit`` or ``tuned``.
        color: what colours the lens: a statistic of every layer and position.
        inputs: what colours the prompt's tokens.
        site: where patching patches.
    """

    model: str = ""
    prompt: str = ""
    corrupted: str = ""
    answer: str = ""
    wrong: str = ""
    pos: int = -1
    layer: int = -1
    head: int = 0
    lens: str = "logit"
    color: str = "top_logprob"
    inputs: str = "attention"
    site: str = "resid_pre"

    def __post_init__(self) -> None:
        for name in ("prompt", "corrupted", "answer", "wrong"):
            length = len(getattr(self, name))
            if length > MOST_CHARACTERS:
                raise ConfigError(
                    f"The {name} was given",
                    got=f"{length:,} characters",
                    allowed=f"up to {MOST_CHARACTERS:,}",
                    fix="cut it to what the model can read",
                )
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), allowed)

    @classmethod
    def of(cls, given: Mapping[str, object]) -> "View":
        """The view that a page or an address describes; what it does not name is left as it is by default.

        Raises:
            ConfigError: a number that is none, a choice that is not there, a text that is too long.
        """
        values: dict[str, object] = {}
        for one in fields(cls):
            if given.get(one.name) is None:
                continue
            text = str(given[one.name])
            values[one.name] = _number(one.name, text) if one.type is int else text
        return cls(**values)  # pyright: ignore[reportArgumentType] - each as its field's type

    def query(self) -> str:
        """As an address carries it: only what differs from the defaults."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return urlencode({name: value for name, value in named.items() if value != getattr(View, name)})


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}={text[:40]!r} was asked", allowed="a whole number") from None
