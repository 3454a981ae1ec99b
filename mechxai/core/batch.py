"""Prompts with known answers, clean beside corrupted, checked once when they are made.

Rows of different length are always stored padded on the right. Under causal attention nothing right of a token can
reach it, so a padded row gives exactly what the prompt gives alone, and position p means the same in both.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechxai.core.alignment import (
    align_left,
    alternatives,
    check_answers,
    check_different,
    check_positions,
    check_tokens,
    extent,
)
from mechxai.core.errors import AlignmentError, ShapeError, SiteError, nearest
from mechxai.core.shapes import Answers, Mask, PromptInts, Rows, Tokens, pick

Answer = str | int  # as it would be appended to the prompt, or one token's id


@dataclass(frozen=True)
class Layout:
    """Where things stand in the rows of a padded batch.

    Attributes:
        lengths: real tokens per row, ``[batch]``.
        roles: role -> its position per row, ``[batch]`` (``S2``, ``END``).
    """

    lengths: PromptInts
    roles: Mapping[str, PromptInts] = field(default_factory=dict[str, PromptInts])

    def positions(self, pos: int | str) -> tuple[PromptInts, Bool[Tensor, " batch"]]:
        """The position each row means by ``pos`` (clamped into the row), and whether the row has it at all."""
        if isinstance(pos, str):
            if pos not in self.roles:
                raise SiteError(
                    f"Role {pos!r} was asked as a position", got="no such role", allowed=nearest(pos, self.roles)
                )
            found = self.roles[pos]
        else:
            found = self.lengths + pos if pos < 0 else torch.full_like(self.lengths, pos)
        valid = (found >= 0) & (found < self.lengths)
        return torch.where(valid, found, 0), valid

    def rows(self, chosen: Rows) -> "Layout":
        """The layout of some rows."""
        return Layout(self.lengths[chosen], {role: at[chosen] for role, at in self.roles.items()})

    def repeat(self, times: int) -> "Layout":
        """The layout of the whole batch repeated ``times`` times."""
        return Layout(self.lengths.repeat(times), {role: at.repeat(times) for role, at in self.roles.items()})


@dataclass(frozen=True)
class ContrastBatch:
    """Clean and corrupted prompts, token by token in line, with right and wrong answers.

    Attributes:
        clean: tokens of the prompts on which the model is right, ``[batch, pos]``, padded on the right.
        corrupted: tokens of their counterparts, same shape and lengths.
        lengths: real tokens per row, ``[batch]``.
        answers: ``[batch, alt, answer_tok]``; alternatives that are right after ``clean``, each a token or several;
            missing places hold -1.
        wrong: the same for what would be wrong.
        answer_pos: the position whose logits predict the answer's first token, ``[batch]``.
        roles: named positions, ``[batch]`` each; ``END`` is always there and equals ``answer_pos``.
        axis: one token string per position where all rows agree on it, for axes of figures; else ``""``.
        strings: the clean prompts as token strings, for hover texts and reports.
        groups: the template of each row; confirmation and probes split by it.
        info: where the batch came from: task, seed, how many prompts were dropped and why.
        reference: log-probabilities of the clean run at the answer position, ``[batch, d_vocab]``, once a method that
            needs them has filled them in.
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
    info: Mapping[str, object] = field(default_factory=dict[str, object])
    reference: Float[Tensor, "batch d_vocab"] | None = None

    def __post_init__(self) -> None:
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
        """Positions of the longest row."""
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
        """What decides the numbers that come of it."""
        return (self.clean, self.corrupted, self.lengths, self.answers, self.wrong, self.answer_pos)

    @property
    def first_difference(self) -> PromptInts:
        """The first position at which clean and corrupted differ, ``[batch]``; the length where they never do."""
        differs = (self.clean != self.corrupted) & self.mask
        first = differs.int().argmax(1)
        return torch.where(differs.any(1), first, self.lengths)

    def tokens(self, run: str) -> Tokens:
        """The tokens of the ``clean`` or the ``corrupted`` run."""
        if run not in ("clean", "corrupted"):
            raise ShapeError(f"Run {run!r} was asked", allowed=("clean", "corrupted"))
        return self.clean if run == "clean" else self.corrupted

    def rows(self, chosen: Rows) -> "ContrastBatch":
        """Some prompts of the batch, padded as before; by their numbers (which may repeat) when given a tensor."""
        return replace(
            self,
            clean=self.clean[chosen],
            corrupted=self.corrupted[chosen],
            lengths=self.lengths[chosen],
            answers=self.answers[chosen],
            wrong=self.wrong[chosen],
            answer_pos=self.answer_pos[chosen],
            roles={role: at[chosen] for role, at in self.roles.items()},
            strings=pick(self.strings, chosen),
            groups=pick(self.groups, chosen),
            reference=None if self.reference is None else self.reference[chosen],
        )

    def parts(self, size: int) -> Iterator[tuple[slice, "ContrastBatch"]]:
        """The batch some prompts at a time.

        Yields:
            Which prompts, and they.
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
        clean: Int[Tensor, "batch pos"],
        corrupted: Int[Tensor, "n_corrupted pos_corrupted"],
        answers: Int[Tensor, "batch ..."],
        wrong: Int[Tensor, "batch ..."],
        *,
        mask: Int[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None = None,
        answer_pos: PromptInts | None = None,
        roles: Mapping[str, PromptInts] | None = None,
    ) -> "ContrastBatch":
        """A batch from token ids.

        Args:
            clean: ``[batch, pos]``; padded on either side when ``mask`` says so.
            corrupted: same shape.
            answers: ``[batch]`` one token each, ``[batch, answer_tok]`` a sequence, or ``[batch, alt, answer_tok]``
                alternatives; pad with -1.
            wrong: likewise.
            mask: 1 on real tokens; all real when absent. Rows padded on the left are moved to the left edge.
            answer_pos: position whose logits predict the answer, in the coordinates of ``clean`` as given; the last
                real token by default.
            roles: named positions, in the same coordinates.

        Raises:
            ShapeError: shapes that do not fit, or a mask with holes.
            AlignmentError: clean and corrupted of different length, or equal answers.
        """
        if clean.shape != corrupted.shape:
            raise AlignmentError(
                "Clean and corrupted prompts must have the same number of tokens",
                got=f"clean {tuple(clean.shape)}, corrupted {tuple(corrupted.shape)}",
                fix="use corrupted prompts that replace tokens one for one (mx.tasks does)",
            )
        real = torch.ones_like(clean, dtype=torch.bool) if mask is None else mask.bool()
        start, lengths = extent(real)
        (clean, corrupted), at = align_left((clean, corrupted), start, lengths)
        ends = lengths - 1 if answer_pos is None else answer_pos - start
        named = {role: position - start for role, position in (roles or {}).items()}
        return cls(clean, corrupted, lengths, alternatives(answers), alternatives(wrong), ends, named, at)

    @classmethod
    def from_prompts(  # noqa: PLR0917 - the public contract's form
        cls,
        model: "Tokenizing",
        clean: Sequence[str],
        corrupted: Sequence[str],
        answers: Sequence[Answer | Sequence[Answer]],
        wrong: Sequence[Answer | Sequence[Answer]],
        *,
        roles: Sequence[Mapping[str, tuple[int, int]]] | None = None,
    ) -> "ContrastBatch":
        """A batch from texts; ``model`` does the tokenizing.

        Args:
            model: a `HookedModel`.
            clean: prompts on which the model should be right.
            corrupted: their counterparts, with as many tokens each.
            answers: what follows ``clean``, as it would be appended (``" Mary"``), one token or several; or the id of a
                token.
            wrong: what would be wrong.
            roles: for each prompt, role -> character span in ``clean``.

        Raises:
            AlignmentError: a pair with different token counts (the message names it), or equal answers.
            ShapeError: lists of different length, or an empty prompt.
        """
        return model.contrast(clean, corrupted, answers, wrong, roles=roles)


@runtime_checkable
class Tokenizing(Protocol):
    """What `ContrastBatch.from_prompts` needs of a model; `mechxai.model.HookedModel` has it."""

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
