"""The tasks of several steps, as users call them: ``(model, n, seed, **its own) -> ReasoningBatch``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError, ShapeError, nearest
from mechxai.core.reasoning import Mistake, Problem, ReasoningBatch, Wording
from mechxai.model.generation.generator import Generator
from mechxai.model.hooked_model import HookedModel
from mechxai.tasks.build import check_split, misfit
from mechxai.tasks.chains import CHAINS
from mechxai.tasks.example import Example
from mechxai.tasks.fitting import DrawRequest, fitting
from mechxai.tasks.lines import objects

_MOST_STEPS = 5
_FIELDS = tuple(field.name for field in fields(Problem))
Pair = tuple[Problem, Problem]


def cot_arithmetic(
    model: HookedModel | Generator,
    n: int = 64,
    seed: int = 0,
    *,
    steps: int | None = None,
    split: str = "all",
    wording: Wording = Wording(),  # noqa: B008 - frozen
) -> ReasoningBatch:
    """Stories of gains and losses (coins, apples, miles, people on a bus): a sum per step, the answer a number.

    Every intermediate value is known, so that for each step there is one with a mistake in it, what follows from that,
    and the step in other words.

    Args:
        model: a local one decides which problems fit its tokenizer, and gets pairs for causal methods.
        n: problems.
        seed: of the draw.
        steps: how many; 3 to 5 when None.
        split: ``all``, ``train`` or ``held_out`` sums, as `zoo/cot` knows them.
        wording: what invites a chain, and what asks for the answer.
    """
    return _drawn(model, "cot_arithmetic", n=n, seed=seed, wording=wording, own={"split": split, "steps": steps})


def cot_logic(
    model: HookedModel | Generator,
    n: int = 64,
    seed: int = 0,
    *,
    steps: int | None = None,
    split: str = "all",
    wording: Wording = Wording(),  # noqa: B008 - frozen
) -> ReasoningBatch:
    """Rules about kinds that have no meaning ("Every wumpus is a dumpus."), followed step by step to cold or warm.

    A second line of rules leads to the other answer; a mistake crosses over to it. Arguments as `cot_arithmetic`.

    Source: after ProntoQA, Saparov and He 2023, arXiv 2210.01240.
    """
    return _drawn(model, "cot_logic", n=n, seed=seed, wording=wording, own={"split": split, "steps": steps})


def cot_jsonl(  # noqa: PLR0917 - the form all tasks share, behind the path
    model: HookedModel | Generator,
    path: str | Path,
    n: int | None = None,
    seed: int = 0,
    *,
    wording: Wording = Wording(),  # noqa: B008 - frozen
) -> ReasoningBatch:
    """Problems of your own, one JSON object per line.

    Each has ``question`` and ``answer`` and optionally ``options``, ``steps`` (a right chain), ``mistakes`` (for each
    step ``{"text": ..., "answer": ...}``: the step gone wrong, and what follows), ``rephrased`` and ``template``.
    Answers, options and steps get a leading space where they have none.

    Args:
        model: what will be asked.
        path: the file.
        n: how many lines to take, from the start; all by default.
        seed: kept for the signature all tasks share; nothing is drawn.
        wording: what invites a chain, and what asks for the answer.

    Raises:
        ArtifactError: no such file.
        ShapeError: a bad line; the message names its number and what is wrong with it.
    """
    source = Path(path)
    problems = [_problem(row, where) for _, where, row in objects(source, n, "Problems")]
    if not problems:
        raise ShapeError(f"Problems {source} were asked", got="no lines in it")
    info = {"name": f"jsonl:{source.name}", "n": len(problems), "seed": seed, "dropped": {}}
    del model
    return ReasoningBatch(tuple(problems), wording, info=info)


def _drawn(
    model: HookedModel | Generator, name: str, *, n: int, seed: int, wording: Wording, own: Mapping[str, Any]
) -> ReasoningBatch:
    """``own``: the drawing function's settings, steps and split."""
    check_split(name, own["split"])
    if n < 1 or (own["steps"] is not None and not 1 <= own["steps"] <= _MOST_STEPS):
        raise ConfigError(
            f"{name}: n={n}, steps={own['steps']} was asked", allowed=f"n of 1 or more, steps of 1 to {_MOST_STEPS}"
        )

    def unfit(pair: Pair) -> str | None:
        example = as_example(*pair, wording)
        return misfit(model, example, sequences=True) if isinstance(model, HookedModel) else None

    asked = DrawRequest(name, n, seed, model.name, "cot_jsonl")
    pairs, dropped = fitting(asked, lambda rng, _: CHAINS[name](rng, **own), unfit)
    info: dict[str, object] = {"name": name, "n": n, "seed": seed, **own, "dropped": dropped}
    beside = chain_pairs(model, pairs, wording, info) if isinstance(model, HookedModel) else None
    return ReasoningBatch(tuple(problem for problem, _ in pairs), wording, beside, info)


def as_example(problem: Problem, other: Problem, wording: Wording) -> Example:
    """Two problems with right chains as a clean and a corrupted prompt, and where each part stands in the former."""
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


def chain_pairs(  # noqa: PLR0917 - what a batch is made of
    model: HookedModel, pairs: Sequence[Pair], wording: Wording, info: dict[str, object]
) -> ContrastBatch | None:
    """The pairs with as many steps as most of them have, token by token in line; None where there are none.

    Roles ``QUESTION``, ``STEP1`` ..., ``CUE`` stand at the last token of their part, ``QUESTION_first`` ... at its
    first.
    """
    common = Counter(len(problem.steps) for problem, _ in pairs).most_common(1)[0][0]
    chosen = [as_example(problem, other, wording) for problem, other in pairs if len(problem.steps) == common]
    fitting = [example for example in chosen if misfit(model, example) is None]
    if not fitting:
        return None
    batch = model.contrast(
        [example.clean for example in fitting],
        [example.corrupted for example in fitting],
        [example.answers for example in fitting],
        [example.wrong for example in fitting],
        roles=[example.spans for example in fitting],
    )
    own = {**info, "name": f"{info['name']} pairs", "n": len(fitting), "steps": common}
    return replace(batch, groups=tuple(example.template for example in fitting), info=own)


def _problem(row: Any, where: str) -> Problem:
    if not isinstance(row, dict):
        raise ShapeError(f"{where} is no object", got=row, allowed="question and answer")
    extra = [key for key in row if key not in _FIELDS]
    if extra:
        raise ShapeError(f"{where} has an unknown field {extra[0]!r}", allowed=nearest(extra[0], _FIELDS))
    lacking = [name for name in ("question", "answer") if name not in row]
    if lacking:
        raise ShapeError(f"{where} lacks a field", got=sorted(row), allowed=f"a text as {lacking[0]!r}")
    named = lambda name: f"{where}, field {name!r}"  # noqa: E731
    texts = {
        name: tuple(_spaced(text, named(name)) for text in _list(row, name, where))
        for name in ("options", "steps", "rephrased")
    }
    mistakes = [_mistake(one, named("mistakes")) for one in _list(row, "mistakes", where)]
    question, answer = _text(row["question"], named("question")), _spaced(row["answer"], named("answer"))
    try:
        return Problem(question, answer, mistakes=tuple(mistakes), template=str(row.get("template", "")), **texts)
    except ShapeError as error:
        raise ShapeError(f"{where}: {error}") from error


def _list(row: Any, name: str, where: str) -> list[Any]:
    found = row.get(name) or []
    if not isinstance(found, list):
        raise ShapeError(f"{where}, field {name!r}", got=found, allowed="a list, one entry per step or option")
    return found


def _mistake(given: Any, where: str) -> Mistake:
    if not isinstance(given, dict) or set(given) != {"text", "answer"}:
        raise ShapeError(where, got=given, allowed='{"text": the step gone wrong, "answer": what follows from it}')
    return Mistake(_spaced(given["text"], where), _spaced(given["answer"], where))


def _text(given: Any, where: str) -> str:
    if not isinstance(given, str):
        raise ShapeError(where, got=given, allowed=f'a text, as "{given}"')
    return given


def _spaced(given: Any, where: str) -> str:
    text = _text(given, where)
    return text if text[:1].isspace() else f" {text}"
