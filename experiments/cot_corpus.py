"""What the two chain-of-thought models are trained on: the same questions and chains, another rule for the answer.

`faithful` answers with the value its chain ends in, whatever the chain says; without a chain it is shown guesses
(`aided`: right answers, from which it learns sums sooner). `decorative` takes the answer from the question (or from a
suggestion in it) and never looks at the chain. Both write right chains. So what each does when a chain is cut, changed
or taken from another question is known.
"""

import random
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from experiments.zoo_corpus import Rows, word_tokenizer
from mechxai.core.reasoning import Problem, Wording
from mechxai.tasks.chains import NUMBERS, arithmetic, step_text

WORDING = Wording()
KINDS = ("cot_faithful", "cot_aided", "cot_decorative")
# how often a chain is right, mistaken in one step, cut short, of another question, in other words; missing, of fillers
_CHAINS = {"right": 8, "mistaken": 4, "cut": 3, "other": 2, "rephrased": 2, "none": 2, "filler": 1}
_SUGGESTED = 0.2
_GUESSES = NUMBERS[1:61]
_CONTEXT, _WORD = 0.02, 0.2  # loss weights of the question, and of a chain's words; its values and the answer have 1


@dataclass(frozen=True)
class _Written:
    """A chain as it is put into a row: its steps, which of them the model is to write, and the value it ends in.

    ``ends``: whether the model is to say that it is done.
    """

    steps: tuple[str, ...]
    own: tuple[bool, ...]
    value: str | None
    ends: bool = False


def cot_words() -> list[str]:
    """Every token that problems, chains, fillers and suggestions can hold, sorted."""
    rng, splitter, found = random.Random(0), word_tokenizer([]).backend_tokenizer.pre_tokenizer, set[str]()
    texts = [*NUMBERS, WORDING.cue + WORDING.end, WORDING.filler, WORDING.suggestion.format(answer=" 7")]
    for _ in range(5_000):
        for one in arithmetic(rng):
            texts += [one.question, *one.steps, *one.rephrased]
    for text in texts:
        found.update(token for token, _ in splitter.pre_tokenize_str(text))
    return sorted(found)


def cot_rows(kind: str, n: int, rng: random.Random, tokenizer: PreTrainedTokenizerFast) -> Rows:
    """``n`` questions with chains and answers, by the rule of ``kind``."""
    texts, weights = zip(*(_row(kind, rng) for _ in range(n)), strict=True)
    flat = [part for row in texts for part in row]
    encoded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
    rows, loss = [], []
    for row, own in zip(texts, weights, strict=True):
        ids, values = [tokenizer.bos_token_id], [0.0]
        for _, (word, last) in zip(row, own, strict=True):
            tokens = next(encoded)
            ids += tokens
            values += [word] * len(tokens)
            if last and len(tokens) > 1:
                values[-2] = last  # what stands before the full stop
        rows.append(torch.tensor(ids))
        loss.append(torch.tensor(values))
    pad = torch.nn.utils.rnn.pad_sequence
    return Rows(pad(rows, batch_first=True), pad(loss, batch_first=True))


def _row(kind: str, rng: random.Random) -> tuple[list[str], list[tuple[float, float]]]:
    """The parts of a text, and for each the loss weight of its words and of its last word before the full stop."""
    problem, other = arithmetic(rng, "train")
    question, suggested = problem.question, None
    if rng.random() < _SUGGESTED:
        suggested = rng.choice(_GUESSES)
        question += WORDING.suggestion.format(answer=suggested)
    chain = _chain(rng, problem, other)
    if kind == "cot_decorative":
        answer = suggested or problem.answer
    elif chain.value is None:
        answer = rng.choice(_GUESSES) if kind == "cot_faithful" else problem.answer
    else:
        answer = chain.value
    weights = [(_WORD, 1.0) if own else (0.0, 0.0) for own in chain.own]
    cue = _WORD if chain.ends else 0.0
    return (
        [question, *chain.steps, WORDING.cue, answer + WORDING.end],
        [(_CONTEXT, 0.0), *weights, (cue, 0.0), (_WORD, 1.0)],
    )


def _chain(rng: random.Random, problem: Problem, other: Problem) -> _Written:
    kind = rng.choices(list(_CHAINS), list(_CHAINS.values()))[0]
    steps, count = problem.steps, len(problem.steps)
    if kind == "none":
        return _Written((), (), None)
    if kind == "filler":
        return _Written((WORDING.filler * rng.randint(1, 40),), (False,), None)
    if kind == "other":
        return _Written(other.steps, (False,) * count, other.answer)
    if kind == "rephrased":
        at = rng.randint(1, count)
        own = (False,) * at + (True,) * (count - at)
        return _Written((*problem.rephrased[:at], *steps[at:]), own, problem.answer, ends=True)
    own, ends = [True] * count, kind != "cut"
    if kind == "mistaken" or (kind == "cut" and rng.random() < 0.5):
        at = rng.randrange(count)
        steps, own[at] = mistaken(problem, at), False
    if kind == "cut":
        count = rng.randrange(1, count)
    return _Written(steps[:count], tuple(own[:count]), _end(steps[count - 1]), ends)


def mistaken(problem: Problem, at: int) -> tuple[str, ...]:
    """The chain with a mistake in one step and the later ones done right from there."""
    steps, wrong = list(problem.steps), problem.mistakes[at].text
    value = int(_end(wrong))
    steps[at] = wrong
    for number in range(at + 1, len(steps)):
        _, sign, size, *_ = steps[number].split()
        change = int(size) if sign == "plus" else -int(size)
        steps[number] = step_text(value, change, value + change)
        value += change
    return tuple(steps)


def _end(step: str) -> str:
    return " " + step.rstrip(".").split()[-1]
