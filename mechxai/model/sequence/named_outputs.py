"""The base of models with one vector of named outputs per text: labels, references, answers."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mechxai.core.alignment import Integers
from mechxai.core.architecture import Architecture
from mechxai.core.batch import Answer, ContrastBatch
from mechxai.core.display import Displayed, Summary
from mechxai.core.errors import AlignmentError, ConfigError, ShapeError, unknown
from mechxai.core.shapes import PromptInts, RowLogits, Tokens
from mechxai.model.prompt_inputs import answer_columns, lengths_of, text_columns, texts_or_tokens
from mechxai.model.text import Column, Prompts, TextCodec, padded
from mechxai.model.unknown_words import announce_unknown_words

_SHOWN = 6  # outputs that a summary names


class NamedOutputs(Displayed):
    """A model with one vector of named outputs per text, which take the place of logits at a single position.

    Attributes:
        name: of the model.
        text: its tokenizer.
        outputs: names of the outputs.
        architecture: sizes; ``d_vocab`` counts tokens.
        card: of a bundled model; empty for others.
    """

    name: str
    text: TextCodec
    outputs: tuple[str, ...]
    architecture: Architecture
    card: Mapping[str, Any]

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of its tokens."""

    @abstractmethod
    def info(self) -> dict[str, object]:
        """The description of the model that results record."""

    @abstractmethod
    def logits(
        self, tokens: Tokens, *, lengths: PromptInts | None = None, at: Int[Tensor, "batch k"] | None = None
    ) -> RowLogits:
        """The outputs ``[batch, 1, output]``; ``at`` has no effect."""

    def summary(self) -> Summary:
        """Name, family and outputs."""
        outputs = ", ".join(repr(output) for output in self.outputs[:_SHOWN])
        more = len(self.outputs) - _SHOWN
        rows = (
            ("family", self.architecture.family),
            ("outputs", f"{outputs} and {more} more" if more > 0 else outputs),
        )
        return Summary(f"{type(self).__name__} {self.name}", rows)

    def tokens(self, prompts: Prompts) -> tuple[Tokens, PromptInts]:
        """Tokens ``[batch, pos]`` padded on the right, and lengths ``[batch]``, of one or more texts."""
        tokens, lengths = self.text.batch(prompts)
        return tokens.to(self.device), lengths.to(self.device)

    def __call__(self, prompts: Prompts, *, lengths: Integers | None = None) -> RowLogits:
        """The outputs ``[batch, 1, output]`` of a text, texts, or token ids ``[batch, pos]``; see `logits`."""
        prompts = texts_or_tokens(prompts)
        if isinstance(prompts, Tensor):
            return self.logits(prompts, lengths=lengths_of(lengths, prompts))
        tokens, lengths = self.tokens(prompts)
        return self.logits(tokens, lengths=lengths)

    def output(self, answer: Answer) -> int:
        """The index of an output, from its name or index.

        Raises:
            ConfigError: the model has no such output.
        """
        if isinstance(answer, str) and answer in self.outputs:
            return self.outputs.index(answer)
        if isinstance(answer, int) and 0 <= answer < len(self.outputs):
            return answer
        raise ConfigError(f"{self.name}: {unknown('output', answer, self.outputs)}")

    def contrast(  # noqa: PLR0917 - the order of `ContrastBatch.from_prompts`
        self,
        clean: Column,
        corrupted: Column,
        answers: Column,
        wrong: Column,
        *,
        roles: Sequence[Mapping[str, tuple[int, int]]] | None = None,
    ) -> ContrastBatch:
        """The batch of these texts; answers are outputs by name or index, roles as in `ContrastBatch.from_prompts`."""
        clean, corrupted = text_columns(clean=clean, corrupted=corrupted)
        answers, wrong = answer_columns(answers=answers, wrong=wrong)
        rows = [[self.text.ids(text) for text in texts] for texts in (clean, corrupted)]
        if not rows[0] or {len(rows[0])} != {len(rows[1]), len(answers), len(wrong)}:
            counts = {"clean": len(clean), "corrupted": len(corrupted), "answers": len(answers), "wrong": len(wrong)}
            listed = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ShapeError(f"Texts and answers must come in equal numbers, not {listed}")
        announce_unknown_words(self.text.tokenizer, [*clean, *corrupted])
        lengths = [len(row) for row in rows[0]]
        if lengths != [len(row) for row in rows[1]]:
            others = [len(row) for row in rows[1]]
            raise AlignmentError(f"Clean texts have {lengths} tokens and corrupted texts {others}: they must be equal")
        if 0 in lengths:
            raise ShapeError(f"Text {lengths.index(0)} is empty: a text needs at least one token")
        tokens = [padded(part) for part in rows]
        ends = [0 if not self.architecture.causal else length - 1 for length in lengths]
        answer_ids, wrong_ids = (
            torch.tensor([[[self.output(_single(answer))]] for answer in column]) for column in (answers, wrong)
        )
        axis = self.text.axis(tokens[0], lengths)
        strings = tuple(self.text.strings(row) for row in rows[0])
        batch = ContrastBatch(tokens[0], tokens[1], torch.tensor(lengths), answer_ids, wrong_ids, torch.tensor(ends))
        places = [self.text.places(text, spans) for text, spans in zip(clean, roles or [{}] * len(clean), strict=True)]
        shared = sorted(set(places[0]).intersection(*places[1:]))
        named = {role: torch.tensor([place[role] for place in places]) for role in shared}
        return replace(batch, axis=axis, strings=strings, roles=named).to(self.device)


def _single(answer: Answer | Sequence[Answer]) -> Answer:
    if isinstance(answer, (str, int)):
        return answer
    if len(answer) != 1:
        raise ConfigError(f"An answer has {len(answer)} alternatives: models with named outputs take one")
    return answer[0]
