"""An OpenAI-compatible endpoint that writes: completions or chats, every answer kept, none asked for twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import ArtifactError, ConfigError, check_choice
from mechxai.model.generation.connection import Connection, choices
from mechxai.model.generation.generator import Writing, Written, cut_at
from mechxai.model.sequence.endpoint_scores import APIS, EndpointQuestions

_MOST_ASKED = {"completions": 10, "chat": 20}  # answers that are worth a request each, or that a chat can list
_STOPS = 4  # texts to stop at that an endpoint takes


@dataclass(frozen=True, eq=False)
class EndpointGenerator:
    """Writes behind an OpenAI-compatible endpoint. Make one with `load_generator`.

    Attributes:
        name: the model's name there.
        api: ``completions`` continues the prompt itself; ``chat`` sends it as the user's message.
        connection: how it is reached; it keeps the answers.
        system: a chat's system message.
        reads: whether to read answers from log-probabilities where the endpoint gives them.
    """

    name: str
    api: str = "completions"
    connection: Connection = field(default_factory=Connection)
    system: str | None = None
    reads: bool = True
    card: Mapping[str, Any] = field(default_factory=dict)

    def info(self) -> dict[str, object]:
        """What a result records of it: no key, no answer."""
        return {
            "name": self.name,
            "backend": "endpoint",
            "processing": "raw",
            "dtype": "unknown",
            "device": "elsewhere",
            "weight_hash": repr((self.connection.place, self.name, self.api, self.system, self.reads)),
            "revision": None,
        }

    def spent(self) -> dict[str, float]:
        """Requests that were paid, answers that were kept from before, and tokens."""
        return {name: float(count) for name, count in self.connection.spent.items()}

    def write(self, prompts: Sequence[str], writing: Writing) -> list[Written]:
        """See `Generator`. Cost: a request per prompt, none for those asked before.

        Raises:
            ArtifactError: no answer after all retries, or one that holds something else than a text.
            ConfigError: no key, or one that is refused.
        """
        shared: dict[str, object] = {"model": self.name, "max_tokens": writing.max_tokens}
        shared |= {"temperature": writing.temperature, "seed": writing.seed}
        if writing.stop:
            shared["stop"] = [one.strip() or one for one in writing.stop[:_STOPS]]
        given = [self._request(prompt) for prompt in prompts]
        route = "completions" if self.api == "completions" else "chat.completions"
        found = choices(self.connection.ask_all(route, [{**shared, **own} for own in given]))
        return [self._written(choice, writing) for choice in found]

    def _written(self, choice: Mapping[str, Any], writing: Writing) -> Written:
        text, stopped = cut_at(self._text(choice), writing.stop)
        return Written(text, stopped or choice.get("finish_reason") != "length")

    def _request(self, prompt: str) -> dict[str, object]:
        if self.api == "completions":
            return {"prompt": prompt}
        before = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {"messages": [*before, {"role": "user", "content": prompt}]}

    def _text(self, choice: Mapping[str, Any]) -> str:
        """What was written; nothing where the endpoint says so (a chat that was filtered, or only thought)."""
        found = choice.get("text") if self.api == "completions" else (choice.get("message") or {}).get("content")
        if not isinstance(found, str | None):
            raise ArtifactError(f"An answer of {self.name} was read", got="no text in it", fix="check the server")
        return found or ""

    def fits(self, text: str, more: int = 0) -> bool:
        """Not known: the endpoint says so itself."""
        del text, more
        return True

    def length(self, text: str) -> int:
        """In words."""
        return len(text.split())

    def scores(self, options: Sequence[str]) -> bool:
        """Where it is worth asking: completions ask once per answer, chats list the 20 likeliest first tokens."""
        return self.reads and 1 < len(options) <= _MOST_ASKED[self.api]

    def logprobs(self, prompts: Sequence[str], options: Sequence[str], end: str = "") -> Float[Tensor, "prompt option"]:
        """See `Generator`; of completions whole answers, of chats their first tokens, where these tell them apart.

        Raises:
            ModelSupportError: an endpoint without log-probabilities.
        """
        alike = any(one != other and other.startswith(one) for one in options for other in options)
        if self.api == "completions":
            asked = tuple(option + end for option in options) if alike else tuple(options)
            found = EndpointQuestions(self.name, asked, self.connection, self.system).whole(prompts)
        else:
            found = EndpointQuestions(self.name, tuple(options), self.connection, self.system).first(prompts)
        return torch.from_numpy(found)


def load_generator(
    name: str,
    *,
    api: str = "completions",
    connection: Connection | None = None,
    system: str | None = None,
    reads: bool = True,
) -> EndpointGenerator:
    """A model behind an OpenAI-compatible endpoint, for methods that read what it writes.

    The official ``openai`` client sends and retries; answers are kept in ``connection.cache``, so that a run which is
    killed goes on and pays for nothing twice. The key stays in the environment.

    Args:
        name: the model's name there.
        api: ``completions`` or ``chat``.
        connection: how it is reached; by what the environment says when None.
        system: a chat's system message.
        reads: read answers from log-probabilities where there are few; else all are read from what is written.

    Raises:
        ConfigError: another api, no name, or a system message for completions.
    """
    check_choice("api", api, APIS)
    if not name or (api == "completions" and system is not None):
        raise ConfigError(
            f"Generator {name!r} was asked",
            got="a system message for completions" if name else "no name",
            allowed="a name; a system message with api=chat",
        )
    return EndpointGenerator(name, api, connection or Connection(), system, reads)
