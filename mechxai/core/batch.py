"""Clean and corrupted prompts with right and wrong answers, checked once on construction.

Rows of different length are padded on the right. Under causal attention no token sees tokens to its right, so a padded
row has exactly the activations of the prompt alone, and position p means the same in both.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechxai.core.alignment import (
    Integers,
    align_left,
    alternatives,
    check_answers,
    check_different,
    check_in_vocabulary,
    check_mask,
    check_positions,
    check_tokens,
    extent,
    integer_tensor,
    plain_list,
)
from mechxai.core.display import Displayed, Summary, counted, of_task, prompt_rows
from mechxai.core.errors import AlignmentError, ShapeError, SiteError, unknown
from mechxai.core.fingerprint import DECIDES
from mechxai.core.shapes import Answers, Mask, PromptInts, Rows, Tokens, pick

Answer = str | int  # the text that would be appended to the prompt, or the id of a token


@dataclass(frozen=True)
class Layout:
    """Lengths and named positions of the rows of a padded batch.

    Attributes:
        lengths: real tokens per row, ``[batch]``.
        roles: role -> its position in each row, ``[batch]`` (``S2``, ``END``).
    """

    lengths: PromptInts
    roles: Mapping[str, PromptInts] = field(default_factory=dict[str, PromptInts])

    def positions(self, pos: int | str) -> tuple[PromptInts, Bool[Tensor, " batch"]]:
        """The index of ``pos`` in each row (0 where the row is too short), and whether the row has that position."""
        if isinstance(pos, str):
            if pos not in self.roles:
                raise SiteError(unknown("role", pos, self.roles))
            positions = self.roles[pos]
        else:
            positions = self.lengths + pos if pos < 0 else torch.full_like(self.lengths, pos)
        valid = (positions >= 0) & (positions < self.lengths)
        return torch.where(valid, positions, 0), valid

    def rows(self, chosen: Rows) -> "Layout":
        """The layout of some rows."""
        return Layout(self.lengths[chosen], {role: at[chosen] for role, at in self.roles.items()})

    def repeat(self, times: int) -> "Layout":
        """The layout of the batch repeated ``times`` times along its rows."""
        return Layout(self.lengths.repeat(times), {role: at.repeat(times) for role, at in self.roles.items()})


@dataclass(frozen=True, repr=False)
class ContrastBatch(Displayed):
    """Clean and corrupted prompts, aligned token by token, with right and wrong answers.

    Attributes:
        clean: tokens of the prompts that the model answers correctly, ``[batch, pos]``, padded on the right.
        corrupted: tokens of their counterparts, same shape and lengths.
        lengths: real tokens per row, ``[batch]``.
        answers: alternative right answers to ``clean``, of one token or several, ``[batch, alt, answer_tok]``; padded
            with -1.
        wrong: alternative wrong answers, in the same form.
        answer_pos: the position whose logits predict the answer's first token, ``[batch]``.
        roles: named positions, ``[batch]`` each; ``END`` always exists and equals ``answer_pos``.
        axis: axis labels: the token at each position where all rows agree, else ``""``.
        strings: the clean prompts as token strings, for hover texts and reports.
        groups: the template of each row; confirmation runs and probes split by it.
        info: provenance: task, settings, seed, how many prompts were dropped and why.
        reference: log-probabilities of the clean run at the answer position, ``[batch, d_vocab]``; set by methods whose
            metric needs them.
    """

    clean: Tokens
    corrupted: Tokens
    lengths: PromptInts
    answers: Answers
    wrong: Int[Tensor, "batch alt_wrong wrong_tok"]
    answer_pos: PromptInts
    roles: Mapping[str, PromptInts] = field(default_factory=dict[str, PromptInts])
    axis: tuple[str, ...] = ()
    strings: tuple[tuple[str, ...], ...] = ()
    groups: tuple[str, ...] = ()
    info: Mapping[str, object] = field(default_factory=dict[str, object], metadata={DECIDES: False})
    reference: Float[Tensor, "batch d_vocab"] | None = None

    def __post_init__(self) -> None:
        for name in ("clean", "corrupted", "lengths", "answers", "wrong", "answer_pos"):
            object.__setattr__(self, name, integer_tensor(name, getattr(self, name)))
        check_tokens(self.clean, self.corrupted, self.lengths)
        n_prompts = len(self.clean)
        for name in ("answers", "wrong"):
            check_answers(name, getattr(self, name), n_prompts)
        check_positions("answer_pos", self.answer_pos, self.lengths)
        for role, at in self.roles.items():
            check_positions(f"role {role!r}", at, self.lengths)
        check_different(self.answers, self.wrong)
        object.__setattr__(self, "roles", {**self.roles, "END": self.answer_pos})

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def n_pos(self) -> int:
        """Tokens of the longest row."""
        return self.clean.shape[1]

    @property
    def mask(self) -> Mask:
        """True on real tokens, ``[batch, pos]``."""
        return torch.arange(self.n_pos, device=self.clean.device)[None] < self.lengths[:, None]

    @property
    def layout(self) -> Layout:
        """Lengths and roles."""
        return Layout(self.lengths, self.roles)

    @property
    def identity(self) -> tuple[object, ...]:
        """The values that determine results, for run ids."""
        return (self.clean, self.corrupted, self.lengths, self.answers, self.wrong, self.answer_pos)

    @property
    def first_difference(self) -> PromptInts:
        """The first position at which clean and corrupted differ, ``[batch]``; the length where they never do."""
        differs = (self.clean != self.corrupted) & self.mask
        first = differs.int().argmax(1)
        return torch.where(differs.any(1), first, self.lengths)

    def check_vocabulary(self, d_vocab: int) -> None:
        """Refuses answers with tokens outside a vocabulary of ``d_vocab`` tokens."""
        check_in_vocabulary("answers", self.answers, d_vocab)
        check_in_vocabulary("wrong", self.wrong, d_vocab)

    def summary(self) -> Summary:
        """Size, task, the first prompts (or the shapes, where the texts are unknown), roles."""
        longest, shortest = int(self.lengths.max()), int(self.lengths.min())
        length = f"{longest}" if longest == shortest else f"{shortest} to {longest}"
        title = f"ContrastBatch: {counted(len(self), 'prompt')}{of_task(self.info)}, {length} tokens"
        shapes = [(name, str(list(getattr(self, name).shape))) for name in ("clean", "corrupted", "answers", "wrong")]
        rows = prompt_rows(self.strings) if self.strings else shapes
        return Summary(title, [*rows, ("roles", ", ".join(self.roles))])

    def tokens(self, run: str) -> Tokens:
        """The tokens of the ``clean`` or the ``corrupted`` run."""
        if run not in ("clean", "corrupted"):
            raise ShapeError(unknown("run", run, ("clean", "corrupted")))
        return self.clean if run == "clean" else self.corrupted

    def rows(self, chosen: Rows) -> "ContrastBatch":
        """Some prompts, with unchanged padding: a slice, or a tensor of prompt numbers (which may repeat)."""
        return replace(
            self,
            clean=self.clean[chosen],
            corrupted=self.corrupted[chosen],
            lengths=self.lengths[chosen],
            answers=self.answers[chosen],
            wrong=self.wrong[chosen],
            answer_pos=self.answer_pos[chosen],
            roles={role: at[chosen] for role, at in self.roles.items()},
            **{name: pick(getattr(self, name), chosen) for name in ("strings", "groups")},
            reference=None if self.reference is None else self.reference[chosen],
        )

    def parts(self, size: int) -> Iterator[tuple[slice, "ContrastBatch"]]:
        """Consecutive parts of the batch, each of at most ``size`` prompts.

        Yields:
            The row slice and its sub-batch.
        """
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield rows, self.rows(rows)

    def to(self, device: torch.device | str) -> "ContrastBatch":
        """The same batch with its tensors on another device."""
        tensors = ("clean", "corrupted", "lengths", "answers", "wrong", "answer_pos")
        moved = {name: getattr(self, name).to(device) for name in tensors}
        reference = None if self.reference is None else self.reference.to(device)
        return replace(
            self, **moved, roles={role: at.to(device) for role, at in self.roles.items()}, reference=reference
        )

    @classmethod
    def from_tokens(  # noqa: PLR0913, PLR0917 - the public contract's form
        cls,
        clean: Integers,
        corrupted: Integers,
        answers: Integers,
        wrong: Integers,
        *,
        mask: Integers | None = None,
        answer_pos: Integers | None = None,
        roles: Mapping[str, Integers] | None = None,
    ) -> "ContrastBatch":
        """A batch from token ids: tensors, numpy arrays, pandas Series or lists, nested or not.

        Args:
            clean: ``[batch, pos]``, padded on either side.
            corrupted: same shape.
            answers: ``[batch]`` for one token each, ``[batch, answer_tok]`` for a sequence, or
                ``[batch, alt, answer_tok]`` for alternatives; padded with -1.
            wrong: in the same form.
            mask: ``[batch, pos]``, 1 on real tokens; all ones by default. Rows padded on the left are moved left.
            answer_pos: position whose logits predict the answer, counted in the padded ``clean``, ``[batch]``; the last
                real token by default.
            roles: named positions, counted in the padded ``clean``, ``[batch]`` each.

        Raises:
            ShapeError: shapes that do not fit, numbers that are not whole, or a mask with holes.
            AlignmentError: clean and corrupted of different length, or equal answers.
        """
        clean, corrupted = integer_tensor("clean", clean), integer_tensor("corrupted", corrupted)
        if clean.shape != corrupted.shape:
            raise AlignmentError(
                f"Clean tokens have shape {tuple(clean.shape)}, corrupted tokens {tuple(corrupted.shape)}: clean and "
                "corrupted prompts must have the same number of tokens",
                fix="Use corrupted prompts that replace tokens one for one, as mx.tasks does",
            )
        ids = partial(_on, clean.device)
        real = torch.ones_like(clean, dtype=torch.bool) if mask is None else ids("mask", mask).bool()
        check_mask(real, clean)
        start, lengths = extent(real)
        (clean, corrupted), axis = align_left((clean, corrupted), start, lengths)
        ends = lengths - 1 if answer_pos is None else ids("answer_pos", answer_pos) - start
        named = {role: ids(f"role {role!r}", position) - start for role, position in (roles or {}).items()}
        right, other = alternatives(ids("answers", answers)), alternatives(ids("wrong", wrong))
        return cls(clean, corrupted, lengths, right, other, ends, named, axis)

    @classmethod
    def from_prompts(  # noqa: PLR0917 - the public contract's form
        cls,
        model: "Tokenizing",
        clean: Iterable[str],
        corrupted: Iterable[str],
        answers: Iterable[Any],
        wrong: Iterable[Any],
        *,
        roles: Sequence[Mapping[str, tuple[int, int]]] | None = None,
    ) -> "ContrastBatch":
        """A batch from texts, as lists, tuples, numpy arrays or pandas Series.

        Args:
            model: a `HookedModel`, whose tokenizer is used.
            clean: prompts that the model should answer correctly.
            corrupted: their counterparts, with as many tokens each.
            answers: the text that follows ``clean``, with its leading space (``" Mary"``), of one token or several; or
                the id of a token; or a list of alternatives.
            wrong: a wrong answer for each prompt, in the same form.
            roles: for each prompt, role -> character span in ``clean``.

        Raises:
            AlignmentError: a pair with different token counts (the message names it), or equal answers.
            ShapeError: lists of different length, an empty prompt, or a token id outside the vocabulary.
        """
        return model.contrast(
            plain_list("clean", clean),
            plain_list("corrupted", corrupted),
            plain_list("answers", answers),
            plain_list("wrong", wrong),
            roles=roles,
        )


@runtime_checkable
class Tokenizing(Protocol):
    """A model that turns texts into a batch, such as `HookedModel`."""

    def contrast(  # noqa: PLR0917 - the order of `ContrastBatch.from_prompts`
        self,
        clean: Sequence[str],
        corrupted: Sequence[str],
        answers: Sequence[Answer | Sequence[Answer]],
        wrong: Sequence[Answer | Sequence[Answer]],
        *,
        roles: Sequence[Mapping[str, tuple[int, int]]] | None = None,
    ) -> ContrastBatch:
        """The batch of these texts."""
        ...


def _on(device: torch.device, name: str, values: Integers) -> Tensor:
    return integer_tensor(name, values).to(device)
