"""An OpenAI-compatible endpoint that continues texts, through completions or chats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.display import Displayed, Summary
from mechxai.core.errors import ArtifactError, ConfigError, check_choice
from mechxai.model.generation.connection import Connection, choices
from mechxai.model.generation.generator import Writing, Written, cut_at
from mechxai.model.sequence.endpoint_scores import Api, EndpointScores

_MOST_OPTIONS = {"completions": 10, "chat": 20}  # answers worth a request each, or that a chat can list
_MOST_STOPS = 4  # stop texts that an endpoint takes


@dataclass(frozen=True, eq=False, repr=False)
class EndpointGenerator(Displayed):
    """Continues texts with a model behind an OpenAI-compatible endpoint. Make one with `load_generator`.

    Attributes:
        name: the model's name at the endpoint.
        api: ``completions`` continues the prompt itself; ``chat`` sends it as the user's message.
        connection: the endpoint's address; stores its responses.
        system: the system message of chats.
        reads: whether answers are read from log-probabilities where the endpoint gives them.
        card: empty; bundled models have one.
    """

    name: str
    api: Api = "completions"
    connection: Connection = field(default_factory=Connection)
    system: str | None = None
    reads: bool = True
    card: Mapping[str, Any] = field(default_factory=dict)

    def info(self) -> dict[str, object]:
        """The description of the model that results record; neither key nor responses."""
        return {
            "name": self.name,
            "backend": "endpoint",
            "processing": "raw",
            "dtype": "unknown",
            "device": "elsewhere",
            "weight_hash": repr((self.connection.place, self.name, self.api, self.system, self.reads)),
            "revision": None,
        }

    def summary(self) -> Summary:
        """Name, API and address; no key."""
        rows = [("api", self.api), ("address", self.connection.base_url or "from the environment")]
        rows += [("system message", self.system)] if self.system else []
        return Summary(f"EndpointGenerator {self.name}", rows)

    def spent(self) -> dict[str, float]:
        """Requests sent, stored responses reused, and tokens."""
        return {name: float(count) for name, count in self.connection.spent.items()}

    def write(self, prompts: Sequence[str], writing: Writing) -> list[Written]:
        """The continuation of each prompt; see `Generator`. Cost: a request per prompt, none for stored responses.

        Raises:
            ArtifactError: no response after all retries, or one without a text.
            ConfigError: no key, or a key that the endpoint refuses.
        """
        shared: dict[str, object] = {"model": self.name, "max_tokens": writing.max_tokens}
        shared |= {"temperature": writing.temperature, "seed": writing.seed}
        if writing.stop:
            shared["stop"] = [text.strip() or text for text in writing.stop[:_MOST_STOPS]]
        requests = [{**shared, **self._request(prompt)} for prompt in prompts]
        route = "completions" if self.api == "completions" else "chat.completions"
        return [self._written(choice, writing) for choice in choices(self.connection.ask_all(route, requests))]

    def _written(self, choice: Mapping[str, Any], writing: Writing) -> Written:
        text, stopped = cut_at(self._text(choice), writing.stop)
        return Written(text, stopped or choice.get("finish_reason") != "length")

    def _request(self, prompt: str) -> dict[str, object]:
        if self.api == "completions":
            return {"prompt": prompt}
        before = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {"messages": [*before, {"role": "user", "content": prompt}]}

    def _text(self, choice: Mapping[str, Any]) -> str:
        """The text of a response; empty where the endpoint gives none (a filtered chat, or one that only thought)."""
        text = choice.get("text") if self.api == "completions" else (choice.get("message") or {}).get("content")
        if not isinstance(text, str | None):
            raise ArtifactError(f"A response of {self.name} has no text in it", fix="Check the server")
        return text or ""

    def fits(self, text: str, more: int = 0) -> bool:
        """True: the context length is unknown, and the endpoint refuses texts that are too long."""
        del text, more
        return True

    def length(self, text: str) -> int:
        """The number of words."""
        return len(text.split())

    def scores(self, options: Sequence[str]) -> bool:
        """Whether there are few answers: completions cost a request each, chats list the 20 likeliest tokens."""
        return self.reads and 1 < len(options) <= _MOST_OPTIONS[self.api]

    def logprobs(self, prompts: Sequence[str], options: Sequence[str], end: str = "") -> Float[Tensor, "prompt option"]:
        """The log-probability of each answer behind each prompt; see `Generator`.

        Completions score whole answers, chats their first tokens where these differ.

        Raises:
            ModelSupportError: the endpoint gives no log-probabilities.
        """
        share_prefixes = any(one != other and other.startswith(one) for one in options for other in options)
        if self.api == "completions":
            answers = tuple(option + end for option in options) if share_prefixes else tuple(options)
            scores = EndpointScores(self.name, answers, self.connection, self.system).whole(prompts)
        else:
            scores = EndpointScores(self.name, tuple(options), self.connection, self.system).first(prompts)
        return torch.from_numpy(scores)


def load_generator(
    name: str,
    *,
    api: Api = "completions",
    connection: Connection | None = None,
    system: str | None = None,
    reads: bool = True,
) -> EndpointGenerator:
    """A model behind an OpenAI-compatible endpoint, for methods that read the texts a model writes.

    The official ``openai`` client sends and retries. Responses are stored in ``connection.cache``, so that an
    interrupted run resumes without paying twice. The key stays in the environment.

    >>> generator = mx.load_generator("gpt-4o-mini", api="chat")

    Args:
        name: the model's name at the endpoint.
        api: ``completions`` continues the prompt itself; ``chat`` sends it as the user's message.
        connection: the endpoint's address; taken from the environment when None.
        system: the system message of chats.
        reads: read answers from log-probabilities where they are few; otherwise from the text.

    Raises:
        ConfigError: an unknown api, an empty name, or a system message for completions.
    """
    check_choice("api", api, get_args(Api))
    if not name:
        raise ConfigError("The generator has no name", fix="Give the model's name at the endpoint")
    if api == "completions" and system is not None:
        raise ConfigError("Completions take no system message", fix="Use api=chat, or leave it out")
    return EndpointGenerator(name, api, connection or Connection(), system, reads)
