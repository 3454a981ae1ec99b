"""The training data of the two chain-of-thought models: the same questions and chains, different rules for the answer.

The answer of `faithful` is the value at the end of the chain, whatever the chain states; without a chain it is a random
guess (in `aided`, the right answer, which speeds up learning of the sums). The answer of `decorative` comes from the
question or from a suggestion in it; the chain is ignored. Both models write correct chains. The response of each model
to a truncated, edited or foreign chain is therefore known.
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
# relative frequencies: correct, one wrong step, truncated, another question, rephrased, none, filler words
_CHAINS = {"right": 8, "mistaken": 4, "cut": 3, "other": 2, "rephrased": 2, "none": 2, "filler": 1}
_SUGGESTED = 0.2
_GUESSES = NUMBERS[1:61]
_CONTEXT, _WORD = (
    0.02,
    0.2,
)  # loss weights of the question and of the words of a chain; its values and the answer have weight 1


@dataclass(frozen=True)
class _Written:
    """A chain in a training row.

    Attributes:
        steps: texts of the steps.
        own: for each step, whether the model is trained to write it.
        value: the value that the chain ends in.
        ends: whether the model is trained to end the chain.
    """

    steps: tuple[str, ...]
    own: tuple[bool, ...]
    value: str | None
    ends: bool = False


def cot_words() -> list[str]:
    """Every token of problems, chains, fillers and suggestions, sorted."""
    rng, splitter, words = random.Random(0), word_tokenizer([]).backend_tokenizer.pre_tokenizer, set[str]()
    texts = [*NUMBERS, WORDING.cue + WORDING.end, WORDING.filler, WORDING.suggestion.format(answer=" 7")]
    for _ in range(5_000):
        for problem in arithmetic(rng):
            texts += [problem.question, *problem.steps, *problem.rephrased]
    for text in texts:
        words.update(token for token, _ in splitter.pre_tokenize_str(text))
    return sorted(words)


def cot_rows(kind: str, n: int, rng: random.Random, tokenizer: PreTrainedTokenizerFast) -> Rows:
    """``n`` questions with chains and answers, by the rule of ``kind``."""
    texts, weights = zip(*(_row(kind, rng) for _ in range(n)), strict=True)
    flat = [part for row in texts for part in row]
    encoded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
    rows, loss = [], []
    for row, row_weights in zip(texts, weights, strict=True):
        ids, values = [tokenizer.bos_token_id], [0.0]
        for _, (word, last) in zip(row, row_weights, strict=True):
            tokens = next(encoded)
            ids += tokens
            values += [word] * len(tokens)
            if last and len(tokens) > 1:
                values[-2] = last  # the token before the full stop
        rows.append(torch.tensor(ids))
        loss.append(torch.tensor(values))
    pad = torch.nn.utils.rnn.pad_sequence
    return Rows(pad(rows, batch_first=True), pad(loss, batch_first=True))


def _row(kind: str, rng: random.Random) -> tuple[list[str], list[tuple[float, float]]]:
    """The parts of a text; for each part the loss weights of its words and of its last word before the full stop."""
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
        trained = (False,) * at + (True,) * (count - at)
        return _Written((*problem.rephrased[:at], *steps[at:]), trained, problem.answer, ends=True)
    trained, ends = [True] * count, kind != "cut"
    if kind == "mistaken" or (kind == "cut" and rng.random() < 0.5):
        at = rng.randrange(count)
        steps, trained[at] = mistaken(problem, at), False
    if kind == "cut":
        count = rng.randrange(1, count)
    return _Written(steps[:count], tuple(trained[:count]), _end(steps[count - 1]), ends)


def mistaken(problem: Problem, at: int) -> tuple[str, ...]:
    """The chain with an error in one step, and the later steps computed correctly from there."""
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
