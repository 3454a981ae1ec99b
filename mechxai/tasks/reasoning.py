"""Chain-of-thought tasks: arithmetic stories, logic, and problems from files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ShapeError, check_choice, unknown
from mechxai.core.reasoning import Mistake, Problem, ReasoningBatch, Wording
from mechxai.model.generation.generator import Generator
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks.build import misfit
from mechxai.tasks.chains import CHAINS
from mechxai.tasks.example import Example, Split
from mechxai.tasks.fitting import DrawRequest, fitting_examples
from mechxai.tasks.lines import json_lines

_MOST_STEPS = 5
_FIELDS = tuple(field.name for field in fields(Problem))
Pair = tuple[Problem, Problem]


def cot_arithmetic(
    model: HookedModel | Generator,
    n: int = 64,
    seed: int = 0,
    *,
    steps: int | None = None,
    split: Split = "all",
    wording: Wording = Wording(),  # noqa: B008 - frozen
) -> ReasoningBatch:
    """Arithmetic stories of gains and losses (coins, apples, miles, people on a bus), one sum per step.

    Every intermediate value is known, so each step comes with a wrong version, the answer that follows from it, and a
    rephrased version.

    Args:
        model: for a local model, the problems fit its tokenizer and come with pairs for causal methods.
        n: number of problems.
        seed: of the draws.
        steps: number of steps; 3 to 5 when None.
        split: ``all``, ``train`` or ``held_out`` sums of the training of `zoo/cot`.
        wording: the texts that invite a chain and ask for the answer.
    """
    return _drawn(model, "cot_arithmetic", n=n, seed=seed, wording=wording, settings={"split": split, "steps": steps})


def cot_logic(
    model: HookedModel | Generator,
    n: int = 64,
    seed: int = 0,
    *,
    steps: int | None = None,
    split: Split = "all",
    wording: Wording = Wording(),  # noqa: B008 - frozen
) -> ReasoningBatch:
    """Rules about fictional kinds ("Every wumpus is a dumpus."), followed step by step to the answer cold or warm.

    A second line of rules leads to the other answer, and a mistake crosses over to it. Arguments as in
    `cot_arithmetic`, with 2 to 4 steps by default.

    Source: after ProntoQA, Saparov and He 2023, arXiv 2210.01240.
    """
    return _drawn(model, "cot_logic", n=n, seed=seed, wording=wording, settings={"split": split, "steps": steps})


def cot_jsonl(  # noqa: PLR0917 - the signature of tasks, after the path
    model: HookedModel | Generator,
    path: str | Path,
    n: int | None = None,
    seed: int = 0,
    *,
    wording: Wording = Wording(),  # noqa: B008 - frozen
) -> ReasoningBatch:
    """Problems from a JSON Lines file.

    Each line has ``question`` and ``answer`` and optionally ``options``, ``steps`` (a correct chain), ``mistakes`` (for
    each step ``{"text": ..., "answer": ...}``: a wrong version and the answer that follows), ``rephrased`` and
    ``template``. Answers, options and steps get a leading space if they have none.

    Args:
        model: unused; part of every task's signature.
        path: the file.
        n: number of lines to read from the start; all by default.
        seed: unused; part of every task's signature.
        wording: the texts that invite a chain and ask for the answer.

    Raises:
        ArtifactError: the file does not exist.
        ShapeError: an invalid line; the message gives its number and the reason.
    """
    source = Path(path)
    problems = [_problem(row, where) for _, where, row in json_lines(source, n)]
    if not problems:
        raise ShapeError(f"{source} has no problems")
    info = {"name": f"jsonl:{source.name}", "n": len(problems), "seed": seed, "dropped": {}}
    del model
    return ReasoningBatch(tuple(problems), wording, info=info)


def _drawn(
    model: HookedModel | Generator, name: str, *, n: int, seed: int, wording: Wording, settings: Mapping[str, Any]
) -> ReasoningBatch:
    """Problems drawn from a grammar with the given steps and split."""
    check_choice("split", settings["split"], get_args(Split))
    steps = settings["steps"]
    if n < 1 or (steps is not None and not 1 <= steps <= _MOST_STEPS):
        raise ConfigError(
            f"{name}: n={n} and steps={steps} cannot be drawn", allowed=f"n of at least 1, steps of 1 to {_MOST_STEPS}"
        )

    def pair_misfit(pair: Pair) -> str | None:
        example = as_example(*pair, wording)
        return misfit(model, example, sequences=True) if isinstance(model, HookedModel) else None

    request = DrawRequest(name, n, seed, model.name, "cot_jsonl")
    pairs, dropped = fitting_examples(request, lambda rng, _: CHAINS[name](rng, **settings), pair_misfit)
    info: dict[str, object] = {"name": name, "n": n, "seed": seed, **settings, "dropped": dropped}
    contrast = chain_pairs(model, pairs, wording, info) if isinstance(model, HookedModel) else None
    return ReasoningBatch(tuple(problem for problem, _ in pairs), wording, contrast, info)


def as_example(problem: Problem, other: Problem, wording: Wording) -> Example:
    """Two problems with correct chains as a clean and a corrupted prompt, with the spans of the clean one's parts."""
    text, spans = problem.question, {"QUESTION": (0, len(problem.question))}
    if wording.start.strip():
        spans["START"] = (len(text) + len(wording.start) - len(wording.start.lstrip()), len(text) + len(wording.start))
    text += wording.start
    for number, step in enumerate(problem.steps, start=1):
        spans[f"STEP{number}"] = (len(text) + 1, len(text) + len(step))
        text += step
    spans["CUE"] = (len(text) + 1, len(text) + len(wording.cue))
    clean, corrupted = text + wording.cue, wording.prompt(other.question, other.steps)
    return Example(clean, corrupted, (problem.answer,), (other.answer,), spans, problem.template)


def chain_pairs(  # noqa: PLR0917 - the parts of a batch
    model: HookedModel, pairs: Sequence[Pair], wording: Wording, info: dict[str, object]
) -> ContrastBatch | None:
    """The aligned pairs with the most common number of steps as a batch, or None if no pair is aligned.

    Roles ``QUESTION``, ``STEP1`` ..., ``CUE`` are at the last token of their part, ``QUESTION_first`` ... at its first.
    """
    common = Counter(len(problem.steps) for problem, _ in pairs).most_common(1)[0][0]
    examples = [as_example(problem, other, wording) for problem, other in pairs if len(problem.steps) == common]
    aligned = [example for example in examples if misfit(model, example) is None]
    if not aligned:
        return None
    batch = model.contrast(
        [example.clean for example in aligned],
        [example.corrupted for example in aligned],
        [example.answers for example in aligned],
        [example.wrong for example in aligned],
        roles=[example.spans for example in aligned],
    )
    pairs_info = {**info, "name": f"{info['name']} pairs", "n": len(aligned), "steps": common}
    return replace(batch, groups=tuple(example.template for example in aligned), info=pairs_info)


def _problem(row: Any, where: str) -> Problem:
    if not isinstance(row, dict):
        raise ShapeError(f"{where} is {row!r}: it must be an object with question and answer")
    extra = [key for key in row if key not in _FIELDS]
    if extra:
        raise ShapeError(f"{where}: {unknown('field', extra[0], _FIELDS)}")
    missing = [name for name in ("question", "answer") if name not in row]
    if missing:
        raise ShapeError(f"{where} lacks the field {missing[0]!r}: it needs question and answer")
    named = lambda name: f"{where}, field {name!r}"  # noqa: E731
    texts = {
        name: tuple(_spaced(text, named(name)) for text in _list(row, name, where))
        for name in ("options", "steps", "rephrased")
    }
    mistakes = [_mistake(mistake, named("mistakes")) for mistake in _list(row, "mistakes", where)]
    question, answer = _text(row["question"], named("question")), _spaced(row["answer"], named("answer"))
    try:
        return Problem(question, answer, mistakes=tuple(mistakes), template=str(row.get("template", "")), **texts)
    except ShapeError as error:
        raise ShapeError(f"{where}: {error}") from error


def _list(row: Any, name: str, where: str) -> list[Any]:
    values = row.get(name) or []
    if not isinstance(values, list):
        raise ShapeError(f"{where}, field {name!r} is {values!r}: it must be a list, one entry per step or option")
    return values


def _mistake(value: Any, where: str) -> Mistake:
    if not isinstance(value, dict) or set(value) != {"text", "answer"}:
        raise ShapeError(
            f"{where} has the entry {value!r}", allowed='{"text": the wrong step, "answer": the answer that follows}'
        )
    return Mistake(_spaced(value["text"], where), _spaced(value["answer"], where))


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ShapeError(f'{where} is {value!r}: it must be a text, such as "{value}"')
    return value


def _spaced(value: Any, where: str) -> str:
    """A text with a leading space."""
    text = _text(value, where)
    return text if text[:1].isspace() else f" {text}"
