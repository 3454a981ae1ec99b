"""What the explorer shows, as a value that is stored in the page's address, so that a link reproduces it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal
from urllib.parse import urlencode

from mechxai.core.errors import ConfigError
from mechxai.core.fields import settle_fields

MAX_CHARACTERS = 20_000
Color = Literal["top_logprob", "answer_logprob", "answer_rank", "entropy", "kl_to_final"]
TokenColor = Literal["attention", "gradient_x_input", "saliency", "occlusion"]
PatchSite = Literal["resid_pre", "attn_out", "mlp_out", "z"]
LensName = Literal["logit", "tuned"]


@dataclass(frozen=True)
class View:
    """One prompt, a position, layer and head in it, and how they are displayed.

    Attributes:
        model: its name in the explorer; empty for the first model.
        prompt: the text.
        corrupted: the corrupted prompt, with as many tokens; empty for none.
        answer: the answer token, with its leading space; empty for the model's first choice at ``pos``.
        wrong: the token that the answer is compared with; empty for the model's next choice.
        pos: the chosen position, negative from the end; -1 is the position that predicts the prompt's next token.
        layer: the chosen layer, of ``n_layers + 1``: the last is the model's output; negative from the end.
        head: the chosen head of that layer.
        lens: ``logit`` or ``tuned``.
        color: the lens statistic shown as colour.
        inputs: the token scores shown as colour of the prompt's tokens.
        site: the activation that patching patches.
    """

    model: str = ""
    prompt: str = ""
    corrupted: str = ""
    answer: str = ""
    wrong: str = ""
    pos: int = -1
    layer: int = -1
    head: int = 0
    lens: LensName = "logit"
    color: Color = "top_logprob"
    inputs: TokenColor = "attention"
    site: PatchSite = "resid_pre"

    def __post_init__(self) -> None:
        for name in ("prompt", "corrupted", "answer", "wrong"):
            length = len(getattr(self, name))
            if length > MAX_CHARACTERS:
                raise ConfigError(
                    f"The {name} has {length:,} characters: at most {MAX_CHARACTERS:,} are allowed",
                    fix="Shorten it to what the model can read",
                )
        settle_fields(self)

    @classmethod
    def of(cls, values: Mapping[str, object]) -> "View":
        """The view that a page or an address describes, with defaults for missing values.

        Raises:
            ConfigError: a position, layer or head that is no number, an unknown choice, or a text that is too long.
        """
        arguments: dict[str, object] = {}
        for field in fields(cls):
            if values.get(field.name) is None:
                continue
            text = str(values[field.name])
            arguments[field.name] = _number(field.name, text) if field.type is int else text
        return cls(**arguments)  # pyright: ignore[reportArgumentType] - each value has its field's type

    def query(self) -> str:
        """The view as the query of an address: only values that differ from the defaults."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return urlencode({name: value for name, value in values.items() if value != getattr(View, name)})


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}={text[:40]!r} is not a whole number") from None
