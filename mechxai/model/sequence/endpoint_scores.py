"""An OpenAI-compatible endpoint as a black box: the log-probabilities of named answers after a text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from mechxai.core.errors import AlignmentError, ConfigError, ModelSupportError, check_choice
from mechxai.model.generation.connection import Connection, choices
from mechxai.model.sequence.black_box import BlackBox, check_outputs

Api = Literal["completions", "chat"]
_TOP = 20  # log-probabilities that a chat endpoint gives at most
_EMPTY_TEXT = "..."  # sent in place of an empty text, which endpoints refuse
_FLOOR = math.log(1e-12)
ELSE = "(anything else)"  # the output with the probability that the named ones leave


def load_endpoint(
    name: str,
    outputs: Sequence[str],
    *,
    api: Api = "completions",
    connection: Connection | None = None,
    system: str | None = None,
) -> BlackBox:
    """A model behind an OpenAI-compatible endpoint, with the log-probabilities of named answers as outputs.

    The outputs are log-probabilities: of each answer, and of anything else. The probabilities add up to 1, so that
    metrics of logits, log-probabilities and probabilities all apply. An empty text is sent as an ellipsis.

    >>> model = mx.load_endpoint("gpt-4o-mini", ["positive", "negative"], api="chat")

    Args:
        name: the model's name at the endpoint.
        outputs: the answers, as they would be appended (for completions with their leading space).
        api: ``completions`` reads whole answers, exactly, from the log-probabilities of the prompt itself (``echo``;
            servers such as vLLM and llama.cpp give them); ``chat`` reads the answers' first token among the 20
            likeliest after the text as the user's message; an answer that is not listed counts as the least likely.
        connection: the endpoint's address; taken from the environment when None.
        system: the system message of chats.

    Raises:
        ConfigError: answers that cannot be told apart, or no key.
        ModelSupportError: at the first run: the endpoint gives no log-probabilities.

    Cost: per text one request for chat, one per answer for completions; none for stored responses.
    """
    check_choice("api", api, get_args(Api))
    check_outputs(name, outputs)
    if ELSE in outputs:
        raise ConfigError(f"{ELSE!r} cannot be an output of {name!r}: it is added by itself", fix="Leave it out")
    if api == "completions" and system is not None:
        raise ConfigError("Completions take no system message", fix="Use api=chat, or leave it out")
    scores = EndpointScores(name, tuple(outputs), connection or Connection(), system)
    function = scores.completions if api == "completions" else scores.chat
    version = repr((scores.connection.place, api, system))
    return BlackBox(name, function, (*outputs, ELSE), version)


@dataclass(frozen=True)
class EndpointScores:
    """Log-probabilities of answers behind texts, from an endpoint.

    Attributes:
        model: its name at the endpoint.
        outputs: the answers.
        connection: the endpoint's address.
        system: the system message of chats.
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
                f"Answers {list(self.outputs)} of {self.model} cannot be told apart: {shared!r} begins two of them",
                fix="Use answers that differ in their first token, or api=completions",
            )
        return _with_rest(np.array([self._likely(top) for top in tops]))

    def first(self, texts: Sequence[str]) -> np.ndarray:
        """Log-probabilities ``[text, output]`` of the answers' first tokens; NaN for texts where they are unknown.

        They are unknown where no answer is among the likeliest tokens, or where one token begins several answers.
        """
        tops = self._tops(texts)
        readable = [
            not self._shared(top) and any(_begins(output, entry["token"]) for output in self.outputs for entry in top)
            for top in tops
        ]
        unknown = [np.nan] * len(self.outputs)
        rows = [self._likely(top) if is_readable else unknown for top, is_readable in zip(tops, readable, strict=True)]
        return np.array(rows, dtype=float).reshape(len(texts), len(self.outputs))

    def whole(self, texts: Sequence[str]) -> np.ndarray:
        """Log-probabilities ``[text, output]`` of whole answers, by teacher forcing."""
        pairs = [(text or _EMPTY_TEXT, output) for text in texts for output in self.outputs]
        bodies = [
            {
                "model": self.model,
                "prompt": text + output,
                "echo": True,
                "logprobs": 1,
                "max_tokens": 1,
                "temperature": 0,
            }
            for text, output in pairs
        ]
        answers = choices(self.connection.ask_all("completions", bodies))
        scores = [self._appended(choice, text, output) for choice, (text, output) in zip(answers, pairs, strict=True)]
        return np.array(scores, dtype=float).reshape(len(texts), len(self.outputs))

    def _tops(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """The likeliest tokens behind each text."""
        before = [] if self.system is None else [{"role": "system", "content": self.system}]
        bodies = [
            {
                "model": self.model,
                "messages": [*before, {"role": "user", "content": text or _EMPTY_TEXT}],
                "logprobs": True,
                "top_logprobs": _TOP,
                "max_tokens": 1,
                "temperature": 0,
            }
            for text in texts
        ]
        answers = choices(self.connection.ask_all("chat.completions", bodies))
        contents = [(choice.get("logprobs") or {}).get("content") or [{}] for choice in answers]
        tops: list[list[dict[str, Any]]] = [content[0].get("top_logprobs") or [] for content in contents]
        if not all(tops):
            raise self._without("chats")
        return tops

    def _appended(self, choice: Mapping[str, Any], text: str, output: str) -> float:
        """The log-probability of an answer's tokens behind a text."""
        logprobs = choice.get("logprobs") or {}
        values, offsets = logprobs.get("token_logprobs"), logprobs.get("text_offset")
        if not values or not offsets:
            raise self._without("echoed prompts")
        end = len(text) + len(output)
        answer = [value for value, offset in zip(values, offsets, strict=False) if len(text) <= offset < end]
        if len(text) not in offsets or not answer:
            raise AlignmentError(
                f"Answer {output!r} behind {text!r}: no token of {self.model} begins where the answer begins",
                fix="End the text without a space and begin the answer with one",
            )
        return float(sum(answer))

    def _shared(self, top: Sequence[Mapping[str, Any]]) -> list[str]:
        """Tokens that begin several answers."""
        tokens = [entry["token"] for entry in top]
        return [token for token in tokens if sum(_begins(output, token) for output in self.outputs) > 1]

    def _likely(self, top: Sequence[Mapping[str, Any]]) -> list[float]:
        """The log-probability of each answer's first token, or of the least likely listed token."""
        least = min(float(entry["logprob"]) for entry in top)
        values = [
            [float(entry["logprob"]) for entry in top if _begins(output, entry["token"])] for output in self.outputs
        ]
        return [float(np.logaddexp.reduce(listed)) if listed else least for listed in values]

    def _without(self, requests: str) -> ModelSupportError:
        return ModelSupportError(
            f"{self.model} at {self.connection.place} gives no log-probabilities for {requests}",
            fix="Use a server that gives them or the other api (completions, chat); chain-of-thought methods can read "
            "the text instead (read=text)",
        )


def _begins(output: str, token: str) -> bool:
    """Whether an answer begins with a token, spaces around it aside."""
    return bool(token.strip()) and output.strip().startswith(token.strip())


def _with_rest(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities with that of anything else; scaled to a total of 1 where the answers add up to more."""
    scores = np.maximum(scores, _FLOOR)
    over = np.logaddexp.reduce(scores, axis=1)
    scores = scores - np.maximum(over, 0.0)[:, None]
    rest = np.maximum(1.0 - np.exp(np.minimum(over, 0.0)), np.exp(_FLOOR))
    return np.concatenate([scores, np.log(rest)[:, None]], axis=1)
