"""Labelled prompts or tokens for training probes, checked once on construction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mechxai.core.alignment import align_left, check_positions, check_tokens, extent
from mechxai.core.batch import ContrastBatch, Layout
from mechxai.core.display import Displayed, Summary, counted, of_task, prompt_rows
from mechxai.core.errors import ShapeError
from mechxai.core.labels import Label, check_classes, check_labels, check_splits, labels_at, numbered, words_of
from mechxai.core.shapes import Mask, PromptInts, Rows, Tokens, pick

Labels = Shaped[Tensor, "batch ..."]  # whole numbers, booleans or floats


@dataclass(frozen=True, repr=False)
class ProbeDataset(Displayed):
    """Prompts with a label each, or with a label per token.

    Attributes:
        tokens: ``[batch, pos]``, padded on the right.
        lengths: real tokens per row, ``[batch]``.
        labels: one per prompt, ``[batch]``, or one per token, ``[batch, pos]``; class numbers, or floats to regress.
            Unlabelled entries are -1 (classes) or NaN (floats).
        names: class names; empty for floats.
        groups: the group of each prompt, which no split may divide (a template, a subject, a document); by default
            every prompt is a group.
        splits: ``train``, ``validation`` or ``test`` per prompt; empty to have them drawn by group.
        roles: named positions, ``[batch]`` each; ``END`` is the last token by default.
        labelled_at: the role that a prompt's label describes, if any (the subject, for its number).
        behaviour: the same prompts with right and wrong answers, for causal checks.
        axis: axis labels: the token at each position where all rows agree, else ``""``.
        strings: the prompts as token strings.
        info: provenance: task, settings, seed.
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
            values = getattr(self, name)
            if values and len(values) != len(self):
                raise ShapeError(f"{name} has {len(values)} of {len(self)} entries: give one per prompt")
        check_splits(self.groups, self.splits)
        if self.behaviour is not None and not (
            torch.equal(self.behaviour.clean, self.tokens) and torch.equal(self.behaviour.lengths, self.lengths)
        ):
            raise ShapeError(
                "The clean prompts of behaviour differ from the dataset's prompts",
                fix="Pass a batch of the same prompts",
            )
        object.__setattr__(self, "roles", {"END": self.lengths - 1, **self.roles})
        for role, at in self.roles.items():
            check_positions(f"role {role!r}", at, self.lengths)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_pos(self) -> int:
        """Tokens of the longest row."""
        return self.tokens.shape[1]

    @property
    def per_token(self) -> bool:
        """Whether labels are per token."""
        return self.labels.ndim == 2

    @property
    def is_numbers(self) -> bool:
        """Whether labels are numbers to regress."""
        return not self.names

    @property
    def mask(self) -> Mask:
        """True on real tokens, ``[batch, pos]``."""
        return torch.arange(self.n_pos, device=self.tokens.device)[None] < self.lengths[:, None]

    @property
    def labelled(self) -> Tensor:
        """True where a real token or prompt has a label, in the shape of the labels."""
        present = ~self.labels.isnan() if self.labels.is_floating_point() else self.labels >= 0
        return present & self.mask if self.per_token else present

    @property
    def layout(self) -> Layout:
        """Lengths and roles."""
        return Layout(self.lengths, self.roles)

    @property
    def identity(self) -> tuple[object, ...]:
        """The values that determine results, for run ids."""
        behaviour = () if self.behaviour is None else self.behaviour.identity
        roles = sorted(self.roles.items())
        labelled = (self.tokens, self.lengths, self.labels, self.names, self.groups, self.splits)
        return (*labelled, roles, self.labelled_at, *behaviour)

    def rows(self, chosen: Rows) -> "ProbeDataset":
        """Some prompts; a part may hold fewer than two classes, so it is not checked again."""
        part = object.__new__(ProbeDataset)
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("tokens", "lengths", "labels"):
            values[name] = values[name][chosen]
        for name in ("groups", "splits", "strings"):
            values[name] = pick(values[name], chosen)
        values["roles"] = {role: at[chosen] for role, at in self.roles.items()}
        values["behaviour"] = None if self.behaviour is None else self.behaviour.rows(chosen)
        for name, value in values.items():
            object.__setattr__(part, name, value)
        return part

    def to(self, device: torch.device | str) -> "ProbeDataset":
        """The same dataset with its tensors on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("tokens", "lengths", "labels")}
        moved["behaviour"] = None if self.behaviour is None else self.behaviour.to(device)
        return replace(self, **moved, roles={role: at.to(device) for role, at in self.roles.items()})

    def summary(self) -> Summary:
        """Size, task, classes, the first prompts (or the shapes, where the texts are unknown)."""
        kinds = f"classes {', '.join(self.names[:10])}" if self.names else "numbers"
        shapes = [(name, str(list(getattr(self, name).shape))) for name in ("tokens", "labels")]
        rows = prompt_rows(self.strings) if self.strings else shapes
        labels = ("labels", f"per {'token' if self.per_token else 'prompt'}, {kinds}")
        return Summary(f"ProbeDataset: {counted(len(self), 'prompt')}{of_task(self.info)}", [*rows, labels])

    @classmethod
    def from_tokens(  # noqa: PLR0913 - one argument per field
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
            tokens: ``[batch, pos]``, padded on either side.
            labels: ``[batch]`` or ``[batch, pos]``; class numbers (-1: unlabelled), or floats.
            names: class names; the class numbers by default.
            mask: ``[batch, pos]``, 1 on real tokens; all ones by default. Rows padded on the left are moved left.
            groups: the group of each prompt, which no split may divide; every prompt by itself by default.
            splits: ``train``, ``validation``, ``test`` per prompt; drawn by group by default.
            roles: named positions, counted in the padded ``tokens``, ``[batch]`` each.

        Raises:
            ShapeError: shapes that do not fit, one class, or a group in two splits.
        """
        if not len(labels) or len(labels) != len(tokens):
            raise ShapeError(f"{counted(len(tokens), 'prompt')} and {counted(len(labels), 'label')} do not match")
        if labels.ndim > 1 and labels.shape != tokens.shape:
            raise ShapeError(
                f"Labels of shape {tuple(labels.shape)} do not match the tokens of shape {tuple(tokens.shape)}"
            )
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
        """A dataset from texts with a label per text, or from lists of words with a label per word.

        A word's label belongs to its last token, the first at which a causal model has read the whole word; its other
        tokens are unlabelled.

        Args:
            model: the model whose tokenizer is used.
            texts: prompts; or prompts as lists of words, which are joined by spaces.
            labels: of each prompt, or of each word. Texts and whole numbers are classes; if any label is a float, all
                are numbers to regress; None is unlabelled.
            groups: the group of each prompt, which no split may divide; every prompt by itself by default.
            splits: ``train``, ``validation``, ``test`` per prompt; drawn by group by default.
            names: class names in the order of their numbers; sorted by default.

        Raises:
            ShapeError: labels that do not match the texts (the message names the prompt), one class, or a group in
                two splits.
        """
        if len(texts) != len(labels) or not len(texts):
            raise ShapeError(f"{counted(len(texts), 'text')} and {counted(len(labels), 'label')} do not match")
        if not isinstance(texts[0], str):
            prompts = [words_of(*pair, number) for number, pair in enumerate(zip(texts, labels, strict=True))]
            joined, spans, word_labels = zip(*prompts, strict=True)
            return cls.from_spans(model, joined, spans, word_labels, groups=groups, splits=splits, names=names)
        numbers, classes = numbered(cast("Sequence[Label]", labels), names)
        dataset = _encoded(model, cast("Sequence[str]", texts), numbers, names=classes)
        return replace(dataset, groups=tuple(groups), splits=tuple(splits)).to(model.device)

    @classmethod
    def from_spans(  # noqa: PLR0913, PLR0917 - as `from_texts`, and the spans
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
        """A dataset from texts with labelled character spans; a label belongs to its span's last token.

        Args:
            model: the model whose tokenizer is used.
            texts: prompts.
            spans: for each prompt, the labelled spans: first character, and the one after the last.
            labels: for each prompt, the label of each span.
            groups: as in `from_texts`, like ``splits`` and ``names``.
            splits: likewise.
            names: likewise.
        """
        n, *others = len(texts), len(spans), len(labels)
        if not n or {n} != set(others):
            raise ShapeError(f"{n} texts, {others[0]} lists of spans and {others[1]} lists of labels do not match")
        for number, (text_spans, text_labels) in enumerate(zip(spans, labels, strict=True)):
            if len(text_spans) != len(text_labels):
                raise ShapeError(f"Prompt {number} has {len(text_spans)} spans and {len(text_labels)} labels")
        numbers, classes = numbered([label for text_labels in labels for label in text_labels], names)
        last_tokens = [
            [last for _, last in model.text.all_tokens_at(text, text_spans)]
            for text, text_spans in zip(texts, spans, strict=True)
        ]
        per_token = labels_at(last_tokens, numbers, [len(model.text.ids(text)) for text in texts])
        dataset = _encoded(model, texts, per_token, names=classes)
        return replace(dataset, groups=tuple(groups), splits=tuple(splits)).to(model.device)


def _encoded(model: "Encoding", texts: Sequence[str], labels: Labels, *, names: tuple[str, ...]) -> ProbeDataset:
    """A dataset of tokenized texts with their labels."""
    ids: list[list[int]] = [model.text.ids(text) for text in texts]
    lengths, rows = [len(row) for row in ids], [torch.tensor(row) for row in ids]
    tokens = pad_sequence(rows, batch_first=True)
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
    """A model that tokenizes texts: its codec and its device."""

    @property
    def text(self) -> Any:
        """The model's `TextCodec`."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of its tokens."""
        ...
