"""Chain-of-thought tasks: arithmetic and logic, mistakes, aligned pairs, and files."""

import json
import random
import re

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import AlignmentError, ArtifactError, ConfigError, ShapeError
from mechxai.core.reasoning import Mistake, Problem, ReasoningBatch, Wording, sentences
from mechxai.tasks.chains import arithmetic, logic, step_text
from mechxai.tasks.reasoning import as_example


@pytest.fixture(scope="module")
def cot():
    return mx.load("zoo/cot", device="cpu")


def calculated(question):
    """The answer, from the numbers of the question alone."""
    first, *rest = question.split(". ")
    total = int(re.search(r"\d+", first).group())
    for sentence in rest:
        number = re.search(r"\d+", sentence)
        if number:
            down = re.search(r"loses|spends|takes out|eats|back|get off", sentence)
            total += -int(number.group()) if down else int(number.group())
    return total


@pytest.mark.parametrize("seed", range(40))
def test_sums_are_right_and_mistakes_lead_where_they_say(seed):
    for problem in arithmetic(random.Random(seed)):
        assert int(problem.answer) == calculated(problem.question)
        value = None
        for step in problem.steps:
            before, sign, size, after = re.fullmatch(r" (\d+) (plus|minus) (\d+) is (\d+)\.", step).groups()
            assert value in (None, int(before))
            value = int(before) + (int(size) if sign == "plus" else -int(size))
            assert value == int(after)
        assert value == int(problem.answer)
        for number, (step, mistake) in enumerate(zip(problem.steps, problem.mistakes, strict=True)):
            assert step != mistake.text
            assert step.rsplit(" ", 1)[0] == mistake.text.rsplit(" ", 1)[0]
            wrong = int(mistake.text.rsplit(" ", 1)[1][:-1])
            for later in problem.steps[number + 1 :]:
                _, sign, size, *_ = later.split()
                wrong += int(size) if sign == "plus" else -int(size)
            assert wrong == int(mistake.answer) != int(problem.answer)
        for step, other in zip(problem.steps, problem.rephrased, strict=True):
            assert sorted(map(int, re.findall(r"\d+", step))) == sorted(map(int, re.findall(r"\d+", other)))


def followed(question):
    """The answer, by following the rules."""
    is_a = dict(re.findall(r"Every (\w+) is a (\w+)\.", question))
    ends = dict(re.findall(r"Every (\w+) is (cold|warm)\.", question))
    kind = re.search(r"\w+ is a (\w+)\. Is", question).group(1)
    while kind not in ends:
        kind = is_a[kind]
    return f" {ends[kind]}"


@pytest.mark.parametrize("seed", range(40))
def test_rules_lead_to_the_answer_and_mistakes_to_the_other(seed):
    one, other = logic(random.Random(seed))
    for problem in (one, other):
        assert problem.answer == followed(problem.question)
        assert {mistake.answer for mistake in problem.mistakes} == {*problem.options} - {problem.answer}
        kinds = [step.split(" is a ")[1].split(",")[0] for step in problem.steps]
        for before, step in zip(kinds[1:], problem.steps[:-1], strict=True):
            assert step.endswith(f"is a {before}.")
    assert one.answer != other.answer


def test_the_same_seed_gives_the_same_problems_and_splits_do_not_meet(cot):
    one, two = (mx.tasks.cot_arithmetic(cot, n=20, seed=3) for _ in range(2))
    assert one.problems == two.problems
    assert one.problems != mx.tasks.cot_arithmetic(cot, n=20, seed=4).problems
    parts = [mx.tasks.cot_arithmetic(cot, n=200, split=split) for split in ("train", "held_out")]
    asked = [{problem.question for problem in part.problems} for part in parts]
    assert not asked[0] & asked[1]
    assert {len(problem.steps) for problem in parts[0].problems} == {3, 4, 5}
    assert {len(problem.steps) for problem in mx.tasks.cot_arithmetic(cot, n=5, steps=2).problems} == {2}


def test_pairs_are_aligned_and_their_spans_hold_the_steps(cot):
    batch = mx.tasks.cot_arithmetic(cot, n=12, steps=3, split="held_out")
    pairs = batch.pairs
    assert len(pairs) == 12
    for row, problem in enumerate(batch.problems):

        def said(role, row=row):
            first, last = (int(pairs.roles[name][row]) for name in (f"{role}_first", role))
            return cot.tokenizer.decode(pairs.clean[row, first : last + 1])

        assert said("QUESTION") == problem.question
        assert [f" {said(f'STEP{number}')}" for number in (1, 2, 3)] == list(problem.steps)
        assert said("CUE") == batch.wording.cue.strip()
        assert cot.text.strings([int(pairs.answers[row, 0, 0])])[0].strip() == problem.answer.strip()
    differ = (pairs.clean != pairs.corrupted) & pairs.mask
    assert bool((differ.sum(1) >= 4).all())
    logits = cot.logits(pairs.clean, lengths=pairs.lengths, at=pairs.answer_pos[:, None])[:, 0]
    assert torch.equal(logits.argmax(-1), pairs.answers[:, 0, 0])


def test_rules_and_their_contraries_are_equally_long():
    for seed in range(20):
        example = as_example(*logic(random.Random(seed)), Wording())
        assert [len(word) for word in example.clean.split()] == [len(word) for word in example.corrupted.split()]


def test_the_invitation_of_a_chain_is_a_separate_part(cot):
    wording = Wording(start=" Tom has 4 coins.")
    pairs = mx.tasks.cot_arithmetic(cot, n=2, steps=2, wording=wording).pairs
    first, last = int(pairs.roles["START_first"][0]), int(pairs.roles["START"][0])
    assert cot.tokenizer.decode(pairs.clean[0, first : last + 1]) == "Tom has 4 coins."
    assert int(pairs.roles["QUESTION"][0]) + 1 == first


def test_a_vocabulary_without_the_words_is_refused(cot):
    with pytest.raises(AlignmentError, match="0 of 4 prompts fit the tokenizer"):
        mx.tasks.cot_logic(cot, n=4)


def test_bad_settings_are_refused(cot):
    for settings in ({"n": 0}, {"steps": 9}):
        with pytest.raises(ConfigError, match="n of at least 1, steps of 1 to 5"):
            mx.tasks.cot_arithmetic(cot, **settings)
    with pytest.raises(ConfigError, match="held_out"):
        mx.tasks.cot_arithmetic(cot, split="heldout")


def test_problems_from_a_file(cot, tmp_path):
    path = tmp_path / "own.jsonl"
    whole = {"question": "2 and 3?", "answer": "5", "steps": ["2 plus 3 is 5."], "options": ["5", "6"]}
    whole |= {"mistakes": [{"text": "2 plus 3 is 6.", "answer": "6"}], "rephrased": [" Adding 3 to 2 gives 5."]}
    path.write_text(json.dumps(whole) + "\n\n" + json.dumps({"question": "Why?", "answer": " so"}) + "\n")
    batch = mx.tasks.cot_jsonl(cot, path, wording=Wording(start=" Let's see."))
    assert batch.problems[0].mistakes == (Mistake(" 2 plus 3 is 6.", " 6"),)
    assert batch.problems[0].options == (" 5", " 6")
    assert (
        batch.wording.prompt("2 and 3?", (" 2 plus 3 is 5.",)) == "2 and 3? Let's see. 2 plus 3 is 5. So the answer is"
    )
    assert batch.wording.prompt("2 and 3?", ()) == "2 and 3? So the answer is"
    assert batch.problems[1].steps == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "a"}', "line 1 lacks the field 'answer'"),
        ('{"question": "a", "answr": "b"}', "Unknown field 'answr'.*answer"),
        ('{"question": "a", "answer": "b", "steps": "b is c."}', "field 'steps'.*a list"),
        ('{"question": "a", "answer": "b", "options": ["b", "B."]}', "line 1: The options.*too alike"),
        ('{"question": "a", "answer": "b", "step": []}', "Unknown field 'step'"),
        ('{"question": "a", "answer": "b", "options": ["c"]}', "not among the options"),
        ('{"question": "a", "answer": 3}', "field 'answer'.*a text"),
        ('{"question": "a", "answer": "b", "steps": ["c"], "rephrased": ["d", "e"]}', "1 step has 2 rephrased"),
        (
            '{"question": "a", "answer": "b", "steps": ["c"], "mistakes": ["d"]}',
            "field 'mistakes'.*the wrong step",
        ),
        ('{"question": " ", "answer": "b"}', "needs a question and an answer"),
        ("[1]", "must be an object"),
        ("", "has no problems"),
    ],
)
def test_a_bad_line_is_named(cot, tmp_path, line, said):
    path = tmp_path / "own.jsonl"
    path.write_text(line)
    with pytest.raises(ShapeError, match=said):
        mx.tasks.cot_jsonl(cot, path)


def test_a_missing_file_is_refused(cot, tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        mx.tasks.cot_jsonl(cot, tmp_path / "none.jsonl")


def test_nouns():
    with pytest.raises(ShapeError, match="at least one problem"):
        ReasoningBatch(())
    batch = ReasoningBatch((Problem("a", "b"), Problem("c", "d"), Problem("e", "f")))
    assert [one.question for one in batch.rows(torch.tensor([2, 0])).problems] == ["e", "a"]
    assert sentences("It is 3.5 now. Is it?\nYes!  ") == (" It is 3.5 now.", " Is it?", "\nYes!")
    assert sentences("1. Dr. Foo has 4.\n2. So it is 5. ") == (" 1. Dr. Foo has 4.", "\n2. So it is 5.")
    assert sentences(" 4 plus 3 is 7. 7 plus 1 is 8.") == (" 4 plus 3 is 7.", " 7 plus 1 is 8.")
    assert len(sentences("\u4f60\u597d\u3002\u518d\u89c1\uff01")) == 2
    assert sentences("") == ()
    for wording in ({"irrelevant": " "}, {"filler": ""}, {"suggestion": " {x} says{answer}."}, {"suggestion": " No."}):
        with pytest.raises(ConfigError, match="wording"):
            Wording(**wording)
    assert step_text(4, -3, 1) == " 4 minus 3 is 1."
