"""An OpenAI-compatible endpoint that writes: completions or chats, every answer kept, none asked for twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import ArtifactError, ConfigError, check_choice
from mechxai.model.connection import Connection, choices
from mechxai.model.endpoint import APIS, Asking
from mechxai.model.generator import Writing, cut_at

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
    connection: Connection = Connection()  # noqa: RUF009 - frozen
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
            "weight_hash": repr((self.connection.place, self.name, self.api, self.system)),
            "revision": None,
        }

    def spent(self) -> dict[str, float]:
        """Requests that were paid, answers that were kept from before, and tokens."""
        return {name: float(count) for name, count in self.connection.spent.items()}

    def write(self, prompts: Sequence[str], writing: Writing) -> list[str]:
        """See `Generator`. Cost: a request per prompt, none for those asked before.

        Raises:
            ArtifactError: no answer after all retries, or one without a text.
            ConfigError: no key, or one that is refused.
        """
        shared: dict[str, object] = {"model": self.name, "max_tokens": writing.max_tokens}
        shared |= {"temperature": writing.temperature, "seed": writing.seed}
        if writing.stop:
            shared["stop"] = [one.strip() for one in writing.stop[:_STOPS]]
        given = [self._request(prompt) for prompt in prompts]
        route = "completions" if self.api == "completions" else "chat.completions"
        found = choices(self.connection.ask_all(route, [{**shared, **own} for own in given]))
        return [cut_at(self._text(choice), writing.stop)[0] for choice in found]

    def _request(self, prompt: str) -> dict[str, object]:
        if self.api == "completions":
            return {"prompt": prompt}
        before = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {"messages": [*before, {"role": "user", "content": prompt}]}

    def _text(self, choice: Mapping[str, Any]) -> str:
        found = choice.get("text") if self.api == "completions" else (choice.get("message") or {}).get("content")
        if not isinstance(found, str):
            raise ArtifactError(f"An answer of {self.name} was read", got="no text in it", fix="check the server")
        return found

    def fits(self, prompt: str) -> bool:
        """Not known: the endpoint says so itself."""
        del prompt
        return True

    def scores(self, options: Sequence[str]) -> bool:
        """Where it is worth asking: completions ask once per answer, chats list the 20 likeliest first tokens."""
        return self.reads and 1 < len(options) <= _MOST_ASKED[self.api]

    def logprobs(self, prompts: Sequence[str], options: Sequence[str]) -> Float[Tensor, "prompt option"]:
        """See `Generator`; `load_endpoint` says how they are read.

        Raises:
            ModelSupportError: an endpoint without log-probabilities.
        """
        asking = Asking(self.name, tuple(options), self.connection, self.system)
        ask = asking.completions if self.api == "completions" else asking.chat
        return torch.from_numpy(ask(prompts)[:, :-1])


def load_generator(
    name: str,
    *,
    api: str = "completions",
    connection: Connection = Connection(),  # noqa: B008 - frozen
    system: str | None = None,
    reads: bool = True,
) -> EndpointGenerator:
    """A model behind an OpenAI-compatible endpoint, for methods that read what it writes.

    The official ``openai`` client sends and retries; answers are kept in ``connection.cache``, so that a run which is
    killed goes on and pays for nothing twice. The key stays in the environment.

    Args:
        name: the model's name there.
        api: ``completions`` or ``chat``.
        connection: how it is reached.
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
    return EndpointGenerator(name, api, connection, system, reads)
