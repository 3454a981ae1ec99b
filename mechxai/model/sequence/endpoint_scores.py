"""An OpenAI-compatible endpoint as a black box: the log-probabilities of named answers after a text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechxai.core.errors import AlignmentError, ConfigError, ModelSupportError, check_choice
from mechxai.model.generation.connection import Connection, choices
from mechxai.model.sequence.black_box import BlackBox, check_outputs

APIS = ("completions", "chat")
_TOP = 20  # log-probabilities that a chat endpoint gives at most
_NOTHING = "..."  # asked in place of an empty text, which endpoints refuse
_FLOOR = math.log(1e-12)
ELSE = "(anything else)"  # the output that has the probability the named ones leave


def load_endpoint(
    name: str,
    outputs: Sequence[str],
    *,
    api: str = "completions",
    connection: Connection | None = None,
    system: str | None = None,
) -> BlackBox:
    """A model behind an OpenAI-compatible endpoint, explained by how probable it holds each of some answers.

    The outputs are log-probabilities: of each answer, and of anything else. They add up to a probability of 1, so that
    metrics of logits, log-probabilities and probabilities mean what they say. A text of which nothing is left is asked
    as an ellipsis.

    Args:
        name: the model's name there.
        outputs: the answers, as they would be appended (for completions with their leading space).
        api: ``completions`` reads whole answers, exactly, from the log-probabilities of the prompt itself (``echo``;
            servers such as vLLM and llama.cpp give them); ``chat`` reads the answers' first token among the 20
            likeliest after the text as the user's message, an answer that is not there counting as the least likely.
        connection: how it is reached; by what the environment says when None.
        system: a chat's system message.

    Raises:
        ConfigError: answers that cannot be told apart, or no key.
        ModelSupportError: when first asked: an endpoint without log-probabilities.

    Cost: per text one request for chat, one per answer for completions; none for what was asked before.
    """
    check_choice("api", api, APIS)
    check_outputs(f"Endpoint model {name!r}", outputs)
    if ELSE in outputs or (api == "completions" and system is not None):
        raise ConfigError(
            f"Endpoint model {name!r} was asked",
            got=f"{ELSE!r} as an output" if ELSE in outputs else "a system message",
            allowed="other outputs" if ELSE in outputs else "a system message with api=chat",
        )
    asking = EndpointQuestions(name, tuple(outputs), connection or Connection(), system)
    function = asking.completions if api == "completions" else asking.chat
    version = repr((asking.connection.place, api, system))
    return BlackBox(name, function, (*outputs, ELSE), version)


@dataclass(frozen=True)
class EndpointQuestions:
    """What is asked of an endpoint, and how its answers are read.

    Attributes:
        model: its name there.
        outputs: the answers.
        connection: how it is reached.
        system: a chat's system message.
    """

    model: str
    outputs: tuple[str, ...]
    connection: Connection
    system: str | None = None

    def completions(self, texts: Sequence[str]) -> np.ndarray:
        """Log-probabilities ``[text, output + 1]`` of whole answers and of anything else."""
        return _with_rest(self.whole(texts))

    def chat(self, texts: Sequence[str]) -> np.ndarray:
        """Log-probabilities ``[text, output + 1]`` of the answers' first tokens and of anything else.

        Raises:
            ConfigError: two answers begin with one token.
        """
        tops = self._tops(texts)
        shared = next((token for top in tops for token in self._shared(top)), None)
        if shared is not None:
            raise ConfigError(
                f"Answers {list(self.outputs)} were asked of {self.model}",
                got=f"{shared!r} begins two of them",
                fix="use answers that differ in their first token, or api=completions",
            )
        return _with_rest(np.array([self._likely(top) for top in tops]))

    def first(self, texts: Sequence[str]) -> np.ndarray:
        """Log-probabilities ``[text, output]`` of the answers' first tokens; NaN where these tell nothing.

        They tell nothing where none of the answers is among the likeliest tokens, or where one begins several of them.
        """
        tops = self._tops(texts)
        known = [
            not self._shared(top) and any(_begins(output, one["token"]) for output in self.outputs for one in top)
            for top in tops
        ]
        rows = [
            self._likely(top) if own else [np.nan] * len(self.outputs) for top, own in zip(tops, known, strict=True)
        ]
        return np.array(rows, dtype=float).reshape(len(texts), len(self.outputs))

    def whole(self, texts: Sequence[str]) -> np.ndarray:
        """Log-probabilities ``[text, output]`` of whole answers, by teacher forcing."""
        asked = [(text or _NOTHING, output) for text in texts for output in self.outputs]
        bodies = [
            {
                "model": self.model,
                "prompt": text + output,
                "echo": True,
                "logprobs": 1,
                "max_tokens": 1,
                "temperature": 0,
            }
            for text, output in asked
        ]
        found = choices(self.connection.ask_all("completions", bodies))
        scores = [self._appended(choice, text, output) for choice, (text, output) in zip(found, asked, strict=True)]
        return np.array(scores, dtype=float).reshape(len(texts), len(self.outputs))

    def _tops(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """The likeliest tokens behind each text."""
        before = [] if self.system is None else [{"role": "system", "content": self.system}]
        bodies = [
            {
                "model": self.model,
                "messages": [*before, {"role": "user", "content": text or _NOTHING}],
                "logprobs": True,
                "top_logprobs": _TOP,
                "max_tokens": 1,
                "temperature": 0,
            }
            for text in texts
        ]
        found = choices(self.connection.ask_all("chat.completions", bodies))
        contents = [(choice.get("logprobs") or {}).get("content") or [{}] for choice in found]
        tops: list[list[dict[str, Any]]] = [content[0].get("top_logprobs") or [] for content in contents]
        if not all(tops):
            raise self._without("chats")
        return tops

    def _appended(self, choice: Mapping[str, Any], text: str, output: str) -> float:
        """The log-probability of an answer's tokens behind a text."""
        given = choice.get("logprobs") or {}
        values, offsets = given.get("token_logprobs"), given.get("text_offset")
        if not values or not offsets:
            raise self._without("echoed prompts")
        end = len(text) + len(output)
        own = [value for value, offset in zip(values, offsets, strict=False) if len(text) <= offset < end]
        if len(text) not in offsets or not own:
            raise AlignmentError(
                f"Answer {output!r} behind {text!r} was asked of {self.model}",
                got="no token begins where the answer begins",
                fix="end the text without a space and begin the answer with one",
            )
        return float(sum(own))

    def _shared(self, top: Sequence[Mapping[str, Any]]) -> list[str]:
        """Tokens that begin several answers."""
        tokens = [one["token"] for one in top]
        return [token for token in tokens if sum(_begins(output, token) for output in self.outputs) > 1]

    def _likely(self, top: Sequence[Mapping[str, Any]]) -> list[float]:
        """The log-probability of each answer's first token, or of the least likely token that was given."""
        least = min(float(one["logprob"]) for one in top)
        of = {
            output: [float(one["logprob"]) for one in top if _begins(output, one["token"])] for output in self.outputs
        }
        return [float(np.logaddexp.reduce(values)) if values else least for values in of.values()]

    def _without(self, what: str) -> ModelSupportError:
        return ModelSupportError(
            f"The log-probabilities of {self.model} at {self.connection.place} were asked",
            got=f"none for {what}",
            fix="use a server that returns them or the other api (completions, chat); methods of chains of thought can "
            "read texts instead (read=text)",
        )


def _begins(output: str, token: str) -> bool:
    """Whether an answer begins with a token, but for spaces around it."""
    return bool(token.strip()) and output.strip().startswith(token.strip())


def _with_rest(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities and that of anything else; brought down to a sum of 1 where bounds add up to more."""
    scores = np.maximum(scores, _FLOOR)
    over = np.logaddexp.reduce(scores, axis=1)
    scores = scores - np.maximum(over, 0.0)[:, None]
    rest = np.maximum(1.0 - np.exp(np.minimum(over, 0.0)), np.exp(_FLOOR))
    return np.concatenate([scores, np.log(rest)[:, None]], axis=1)
