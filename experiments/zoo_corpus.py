"""The training data of the bundled models: batches of token ids with a loss weight per token."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mechxai.tasks.example import Example
from mechxai.tasks.grammars import GRAMMARS, ioi

SPECIALS = ("<pad>", "<bos>", "<unk>")
_CONTEXT_WEIGHT = 0.1  # loss weight of tokens that no grammar determines


@dataclass(frozen=True)
class Rows:
    """A batch: token ids, a loss weight for each (as the token to be predicted), and role positions."""

    ids: Tensor
    weights: Tensor
    roles: dict[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> "Rows":
        """The batch on another device."""
        return Rows(
            self.ids.to(device), self.weights.to(device), {role: at.to(device) for role, at in self.roles.items()}
        )


def word_tokenizer(words: list[str], *, tidy: bool = False) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: words, punctuation runs and pairs of digits are tokens; white space is dropped.

    ``tidy`` decodes without spaces before punctuation.
    """
    vocab = {token: index for index, token in enumerate((*SPECIALS, *words))}
    core = Tokenizer(models.WordLevel(vocab=vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split(Regex(r"\d\d"), "isolated")]
    )
    core.decoder = decoders.WordPiece(prefix="##", cleanup=tidy)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<bos>", pad_token="<pad>", unk_token="<unk>"
    )


def grammar_words(n: int = 20_000) -> list[str]:
    """Every token that the grammars can produce, sorted."""
    rng, splitter, words = random.Random(0), word_tokenizer([]).backend_tokenizer.pre_tokenizer, {"."}
    for draw in GRAMMARS.values():
        for _ in range(n):
            example = draw(rng)
            for text in (example.clean, example.corrupted, *example.answers, *example.wrong):
                words.update(token for token, _ in splitter.pre_tokenize_str(text))
    return sorted(words)


def task_rows(task: str, n: int, rng: random.Random, tokenizer: PreTrainedTokenizerFast, split: str = "train") -> Rows:
    """``n`` sentences of a grammar, each with its answer (loss weight 1) and a full stop."""
    return example_rows((_draw(task, rng, split) for _ in range(n)), rng, tokenizer)


def example_rows(drawn: Iterable[Example], rng: random.Random, tokenizer: PreTrainedTokenizerFast) -> Rows:
    """Examples, each with one of its answers at random (loss weight 1) and a full stop."""
    texts, examples = [], []
    for example in drawn:
        examples.append(example)
        joiner = "" if example.answers[0].startswith(" ") or example.clean[-1].isdigit() else " "
        texts.append((example.clean, joiner + rng.choice(example.answers)))
    n = len(examples)
    prompts = tokenizer([text for text, _ in texts], add_special_tokens=False, return_offsets_mapping=True)
    whole = tokenizer([text + answer + "." for text, answer in texts], add_special_tokens=False)["input_ids"]
    length = max(len(row) for row in whole) + 1
    ids, weights = torch.zeros(n, length, dtype=torch.long), torch.zeros(n, length)
    roles: dict[str, list[int]] = {}
    for i, row in enumerate(whole):
        ids[i, 0] = tokenizer.bos_token_id
        ids[i, 1 : len(row) + 1] = torch.tensor(row)
        weights[i, 2 : len(row) + 1] = _CONTEXT_WEIGHT
        end = len(prompts["input_ids"][i])
        weights[i, end + 1] = 1.0
        roles.setdefault("END", []).append(end)
        for role, (start, _) in examples[i].spans.items():
            token = next(t for t, (low, high) in enumerate(prompts["offset_mapping"][i]) if low <= start < high)
            roles.setdefault(role, []).append(token + 1)
    complete = {role: torch.tensor(positions) for role, positions in roles.items() if len(positions) == n}
    return Rows(ids, weights, complete)


def _draw(task: str, rng: random.Random, split: str) -> Example:
    if task != "ioi_abc":
        return GRAMMARS[task](rng, split=split)
    example = ioi(rng, split, corruption="abc")  # nobody is repeated: either name may receive
    return Example(example.corrupted, example.clean, (*example.answers, *example.wrong), ())


def repeated_rows(n: int, length: int, generator: torch.Generator, pool: Tensor, bos: int) -> Rows:
    """Half of the rows repeat pairs (A B ... A -> B) among fillers, half repeat one sequence after a random prefix.

    The mixture gives canonical induction heads; rows of the second kind alone give heads that attend to other offsets.
    """
    half = n // 2
    pairs, pair_weights = _pair_rows(half, length - 1, generator, len(pool))
    copies, copy_weights = _copy_rows(n - half, length - 1, generator, len(pool))
    ids = torch.cat([torch.full((n, 1), bos), pool[torch.cat([pairs, copies])]], 1)
    weights = torch.cat([torch.zeros(n, 1), torch.cat([pair_weights, copy_weights])], 1)
    return Rows(ids, weights)


def _pair_rows(
    n: int, length: int, generator: torch.Generator, n_words: int, n_pairs: int = 6
) -> tuple[Tensor, Tensor]:
    first = torch.rand(n, n_words, generator=generator).argsort(1)[:, :n_pairs]
    second = torch.randint(n_words, (n, n_pairs), generator=generator)
    ids, weights = torch.zeros(n, length + 1, dtype=torch.long), torch.zeros(n, length + 1)
    for row in range(n):
        at, seen = 0, set()
        while at < length:
            if torch.rand((), generator=generator) < 0.3:
                ids[row, at] = torch.randint(n_words, (), generator=generator)
                at += 1
                continue
            pick = int(torch.randint(n_pairs, (), generator=generator))
            ids[row, at], ids[row, at + 1] = first[row, pick], second[row, pick]
            weights[row, at + 1] = float(pick in seen)
            seen.add(pick)
            at += 2
    return ids[:, :length], weights[:, :length]


def _copy_rows(n: int, length: int, generator: torch.Generator, n_words: int) -> tuple[Tensor, Tensor]:
    period = torch.randint(4, length // 2 + 1, (n, 1), generator=generator)
    start = (torch.rand(n, 1, generator=generator) * (length - 2 * period + 1)).long()
    sequence = torch.randint(n_words, (n, length), generator=generator)
    filler = torch.randint(n_words, (n, length), generator=generator)
    offset = torch.arange(length)[None] - start
    inside = (offset >= 0) & (offset < 2 * period)
    ids = torch.where(inside, sequence.gather(1, offset.clamp(min=0) % period), filler)
    return ids, ((offset > period) & (offset < 2 * period)).float()
