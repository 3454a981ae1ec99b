"""Prompts with labels, of each prompt or of each token, to train probes on; checked once when they are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mechxai.core.alignment import align_left, check_positions, check_tokens, extent
from mechxai.core.batch import ContrastBatch, Layout
from mechxai.core.errors import ShapeError
from mechxai.core.labels import Label, check_classes, check_labels, check_splits, numbered, words_of
from mechxai.core.shapes import Mask, PromptInts, Rows, Tokens, pick

Labels = Shaped[Tensor, "batch ..."]  # whole numbers, bools or floats


@dataclass(frozen=True)
class ProbeDataset:
    """Labelled prompts.

    Attributes:
        tokens: ``[batch, pos]``, padded on the right.
        lengths: real tokens per row, ``[batch]``.
        labels: one per prompt, ``[batch]``, or one per token, ``[batch, pos]``; the number of a class, or floats to be
            regressed. Unlabelled places hold -1 (classes) or NaN (numbers).
        names: of the classes; empty for numbers.
        groups: what may not be torn apart by a split (the template, the subject, the document); by default every
            prompt is its own.
        splits: ``train``, ``validation`` or ``test`` per prompt; empty to have it drawn by group.
        roles: named positions, ``[batch]`` each; ``END`` is the last token unless given.
        labelled_at: the role at which a prompt's label belongs, where there is one (the subject, for its number).
        behaviour: the same prompts with right and wrong answers, for causal checks.
        axis: one token string per position where all rows agree on it, for axes of figures; else ``""``.
        strings: the prompts as token strings.
        info: where it came from.
    """

    tokens: Tokens
    lengths: PromptInts
    labels: Labels
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    roles: Mapping[str, PromptInts] = field(default_factory=dict[str, PromptInts])
    labelled_at: str | None = None
    behaviour: ContrastBatch | None = None
    axis: tuple[str, ...] = ()
    strings: tuple[tuple[str, ...], ...] = ()
    info: Mapping[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        check_tokens(self.tokens, self.tokens, self.lengths)
        kind = torch.float32 if self.labels.is_floating_point() else torch.long
        object.__setattr__(self, "labels", self.labels.to(kind))
        check_labels(self.tokens, self.labels, self.names)
        check_classes(self.labels[self.labelled], self.names)
        if not self.groups:
            object.__setattr__(self, "groups", tuple(str(number) for number in range(len(self))))
        for name in ("groups", "splits"):
            given = getattr(self, name)
            if given and len(given) != len(self):
                raise ShapeError(f"{name} of a probe dataset", got=f"{len(given)} for {len(self)} prompts")
        check_splits(self.groups, self.splits)
        if self.behaviour is not None and not _same_prompts(self.behaviour, self.tokens, self.lengths):
            raise ShapeError("The behaviour of a probe dataset", got="other prompts", fix="give its clean prompts")
        object.__setattr__(self, "roles", {"END": self.lengths - 1, **self.roles})
        for role, at in self.roles.items():
            check_positions(f"role {role!r}", at, self.lengths)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_pos(self) -> int:
        """Positions of the longest row."""
        return self.tokens.shape[1]

    @property
    def per_token(self) -> bool:
        """Whether every token has a label of its own."""
        return self.labels.ndim == 2

    @property
    def is_numbers(self) -> bool:
        """Whether labels are numbers to be regressed."""
        return not self.names

    @property
    def mask(self) -> Mask:
        """True on real tokens, ``[batch, pos]``."""
        return torch.arange(self.n_pos, device=self.tokens.device)[None] < self.lengths[:, None]

    @property
    def labelled(self) -> Tensor:
        """Where there is a label (on a real token), in the shape of the labels."""
        known = ~self.labels.isnan() if self.labels.is_floating_point() else self.labels >= 0
        return known & self.mask if self.per_token else known

    @property
    def layout(self) -> Layout:
        """Lengths and roles."""
        return Layout(self.lengths, self.roles)

    @property
    def identity(self) -> tuple[object, ...]:
        """What decides the numbers that come of it."""
        behaviour = () if self.behaviour is None else self.behaviour.identity
        roles = sorted(self.roles.items())
        own = (self.tokens, self.lengths, self.labels, self.names, self.groups, self.splits)
        return (*own, roles, self.labelled_at, *behaviour)

    def rows(self, chosen: Rows) -> "ProbeDataset":
        """Some prompts, unchecked for classes: they share ``names`` with the whole."""
        made = object.__new__(ProbeDataset)
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("tokens", "lengths", "labels"):
            values[name] = values[name][chosen]
        for name in ("groups", "splits", "strings"):
            values[name] = pick(values[name], chosen)
        values["roles"] = {role: at[chosen] for role, at in self.roles.items()}
        values["behaviour"] = None if self.behaviour is None else self.behaviour.rows(chosen)
        for name, value in values.items():
            object.__setattr__(made, name, value)
        return made

    def to(self, device: torch.device | str) -> "ProbeDataset":
        """The same with its tensors on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("tokens", "lengths", "labels")}
        behaviour = None if self.behaviour is None else self.behaviour.to(device)
        return replace(
            self, **moved, roles={role: at.to(device) for role, at in self.roles.items()}, behaviour=behaviour
        )

    @classmethod
    def from_tokens(  # noqa: PLR0913 - one argument for each thing that can be known
        cls,
        tokens: Int[Tensor, "batch pos"],
        labels: Labels,
        *,
        names: Sequence[str] = (),
        mask: Tensor | None = None,
        groups: Sequence[str] = (),
        splits: Sequence[str] = (),
        roles: Mapping[str, PromptInts] | None = None,
    ) -> "ProbeDataset":
        """A dataset from token ids.

        Args:
            tokens: ``[batch, pos]``; padded on either side when ``mask`` says so.
            labels: ``[batch]`` or ``[batch, pos]``; whole numbers of classes (-1: unlabelled), or floats.
            names: of the classes; their numbers by default.
            mask: 1 on real tokens; all real when absent. Rows padded on the left are moved to the left edge.
            groups: what a split may not tear apart; every prompt by itself by default.
            splits: ``train``, ``validation``, ``test`` per prompt; drawn by group by default.
            roles: named positions, in the coordinates of ``tokens`` as given.

        Raises:
            ShapeError: shapes that do not fit, one class, or a group in two splits.
        """
        if not len(labels) or len(labels) != len(tokens):
            raise ShapeError("Labels do not match the prompts", got=f"{len(labels)} labels, {len(tokens)} prompts")
        if labels.ndim > 1 and labels.shape != tokens.shape:
            raise ShapeError("Labels do not match the tokens", got=f"{tuple(labels.shape)} and {tuple(tokens.shape)}")
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
        start, lengths = extent(real)
        (moved, _), _ = align_left((tokens, tokens), start, lengths)
        if labels.ndim == 2:
            at = torch.arange(tokens.shape[1], device=tokens.device)[None] + start[:, None]
            labels = labels.gather(1, at.clamp_max(tokens.shape[1] - 1))[:, : moved.shape[1]]
        if not names and not labels.is_floating_point():
            names = [str(number) for number in range(int(labels.max()) + 1)]
        named = {role: position - start for role, position in (roles or {}).items()}
        return cls(moved, lengths, labels, tuple(names), tuple(groups), tuple(splits), named)

    @classmethod
    def from_texts(
        cls,
        model: "Encoding",
        texts: Sequence[str] | Sequence[Sequence[str]],
        labels: Sequence[Label] | Sequence[Sequence[Label]],
        *,
        groups: Sequence[str] = (),
        splits: Sequence[str] = (),
        names: Sequence[str] = (),
    ) -> "ProbeDataset":
        """A dataset from texts with a label each, or from lists of words with a label each.

        A word's label goes to its last token, the first at which a causal model has read all of it; its other tokens
        stay unlabelled.

        Args:
            model: does the tokenizing.
            texts: prompts; or prompts as lists of words, which are joined by spaces.
            labels: of each prompt, or of each word. Texts and whole numbers are classes; where a float is among them
                they are numbers to be regressed; None is unlabelled.
            groups: what a split may not tear apart; every prompt by itself by default.
            splits: ``train``, ``validation``, ``test`` per prompt; drawn by group by default.
            names: of the classes, in the order wanted; sorted by default.

        Raises:
            ShapeError: labels that do not match the texts (the message names the prompt), one class, or a group in
                two splits.
        """
        if len(texts) != len(labels) or not len(texts):
            raise ShapeError("Labels do not match the texts", got=f"{len(texts)} texts, {len(labels)} labels")
        if not isinstance(texts[0], str):
            read = [words_of(*pair, number) for number, pair in enumerate(zip(texts, labels, strict=True))]
            joined, spans, own = zip(*read, strict=True)
            return cls.from_spans(model, joined, spans, own, groups=groups, splits=splits, names=names)
        given, classes = numbered(cast("Sequence[Label]", labels), names)
        made = _encoded(model, cast("Sequence[str]", texts), given, names=classes)
        return replace(made, groups=tuple(groups), splits=tuple(splits)).to(model.device)

    @classmethod
    def from_spans(  # noqa: PLR0913, PLR0917 - texts, what is labelled in them, as what; as `from_texts` else
        cls,
        model: "Encoding",
        texts: Sequence[str],
        spans: Sequence[Sequence[tuple[int, int]]],
        labels: Sequence[Sequence[Label]],
        *,
        groups: Sequence[str] = (),
        splits: Sequence[str] = (),
        names: Sequence[str] = (),
    ) -> "ProbeDataset":
        """A dataset from texts in which stretches of characters have labels; each goes to its stretch's last token.

        Args:
            model: does the tokenizing.
            texts: prompts.
            spans: of each prompt, first character and the one behind the last of what is labelled.
            labels: of each span.
            groups: as `from_texts`.
            splits: as `from_texts`.
            names: as `from_texts`.
        """
        counts = {"texts": len(texts), "spans": len(spans), "labels": len(labels)}
        if len(set(counts.values())) > 1 or not len(texts):
            raise ShapeError("Spans and labels do not match the texts", got=counts)
        for number, (places, own) in enumerate(zip(spans, labels, strict=True)):
            if len(places) != len(own):
                raise ShapeError(f"Prompt {number}: labels do not match", got=f"{len(places)} spans, {len(own)} labels")
        given, classes = numbered([label for own in labels for label in own], names)
        rows: list[Tensor] = []
        at = 0
        for text, own in zip(texts, spans, strict=True):
            row = torch.full((len(model.text.ids(text)),), -1 if classes else torch.nan, dtype=given.dtype)
            row[[last for _, last in model.text.all_tokens_at(text, own)]] = given[at : at + len(own)]
            rows.append(row)
            at += len(own)
        spread = pad_sequence(rows, batch_first=True, padding_value=-1 if classes else torch.nan)
        made = _encoded(model, texts, spread, names=classes)
        return replace(made, groups=tuple(groups), splits=tuple(splits)).to(model.device)


def _encoded(model: "Encoding", texts: Sequence[str], labels: Labels, *, names: tuple[str, ...]) -> ProbeDataset:
    """Texts as tokens, with their labels."""
    ids: list[list[int]] = [model.text.ids(text) for text in texts]
    lengths = [len(row) for row in ids]
    tokens = pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
    return ProbeDataset(
        tokens,
        torch.tensor(lengths),
        labels,
        names,
        axis=model.text.axis(tokens, lengths),
        strings=tuple(model.text.strings(row) for row in ids),
        info={"name": "given", "n": len(ids)},
    )


@runtime_checkable
class Encoding(Protocol):
    """What `ProbeDataset.from_texts` needs of a model: its codec and its device."""

    @property
    def text(self) -> Any:
        """Its `TextCodec`."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its tokens go."""
        ...


def _same_prompts(batch: ContrastBatch, tokens: Tensor, lengths: Tensor) -> bool:
    return (
        batch.clean.shape == tokens.shape and torch.equal(batch.clean, tokens) and torch.equal(batch.lengths, lengths)
    )
