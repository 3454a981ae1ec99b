"""Chains of thought: by hand on a scripted model, and on two models of which it is known what drives the answer."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import mechxai as mx
from mechxai.core.edit import Intervention, Patch
from mechxai.core.errors import ConfigError, ModelSupportError
from mechxai.core.reasoning import Mistake, Problem, ReasoningBatch, Wording, plain
from mechxai.core.site import Site
from mechxai.methods.cot._lib.answer_reading import last_value, parsed
from mechxai.methods.cot._lib.rewriting import Place, rewritten
from mechxai.methods.cot.self_consistency import majority
from mechxai.model.generation.generator import Written

CURVES = (mx.EarlyAnswering, mx.AddingMistakes, mx.Paraphrasing, mx.FillerTokens)


class Scripted:
    """A generator that is a function of the prompt: it writes the given chain on, and answers by a rule.

    ``rule``: from the question and the chain's text to the answer, or to a text.
    """

    name, card = "scripted", {}

    def __init__(self, batch, rule, draw=None, reads=True):
        self.chains = {problem.question: problem.steps for problem in batch.problems}
        self.rule, self.draw, self.reads = rule, draw, reads
        self.cue, self.asked = batch.wording.cue, 0

    def info(self):
        return {"name": self.name, "weight_hash": "0", "backend": "none", "processing": "raw", "dtype": "none"}

    def spent(self):
        return {"asked": float(self.asked)}

    def _parts(self, prompt):
        question = next(one for one in sorted(self.chains, key=len, reverse=True) if one in prompt)
        return question, prompt.split(question, 1)[1]

    def write(self, prompts, writing):
        self.asked += len(prompts)
        found = []
        for prompt in prompts:
            question, chain = self._parts(prompt)
            if chain.endswith(self.cue):
                found.append(self.rule(question, chain.removesuffix(self.cue)))
            elif self.draw is not None:
                found.append(self.draw(question, writing.seed))
            else:
                found.append("".join(self.chains[question][chain.count(".") :]))
        return [Written(text) for text in found]

    def fits(self, text, more=0):
        return True

    def length(self, text):
        return len(text.split())

    def scores(self, options):
        return self.reads and bool(options)

    def logprobs(self, prompts, options, end=""):
        self.asked += len(prompts)
        rows = []
        for prompt in prompts:
            question, chain = self._parts(prompt)
            answer = self.rule(question, chain.removesuffix(self.cue))
            rows.append([-0.1 if option == answer else -3.0 for option in options])
        return torch.tensor(rows, dtype=torch.float64)


OPTIONS = (" 1", " 2", " 3", " 4", " 5", " 6", " 7", " 8", " 9")


def problem(question, steps, mistakes=()):
    answer = f" {steps[-1].rstrip('.').split()[-1]}"
    return Problem(question, answer, tuple(steps), tuple(mistakes), options=OPTIONS)


@pytest.fixture
def batch():
    return ReasoningBatch(
        (
            problem(
                "1 and 2 and 3?",
                (" 1 plus 2 is 3.", " 3 plus 3 is 6."),
                (Mistake(" 1 plus 2 is 4.", " 7"), Mistake(" 3 plus 3 is 5.", " 5")),
            ),
            problem(
                "9 less 1 less 1 less 1 less 1?",
                (" 9 minus 1 is 8.", " 8 minus 1 is 7.", " 7 minus 1 is 6.", " 6 minus 1 is 5."),
                (
                    Mistake(" 9 minus 1 is 7.", " 4"),
                    Mistake(" 8 minus 1 is 6.", " 4"),
                    Mistake(" 7 minus 1 is 5.", " 4"),
                    Mistake(" 6 minus 1 is 4.", " 4"),
                ),
            ),
        )
    )


def reads_last(question, chain):
    """The last value said; 1 where none is."""
    said = re.findall(r"(\d+)[.]", chain)
    return f" {said[-1] if said else 1}"


def reads_question(question, chain):
    return " 6" if question.startswith("1") else " 5"


def test_early_answers_by_hand(batch):
    """Answers 1, 3, 6 and 1, 8, 7, 6, 5 along the chains: agreement begins at the last step."""
    data = mx.EarlyAnswering()(Scripted(batch, reads_last), batch).data
    assert list(data["agreement_by_length"].sel(n_steps=2).values[:3]) == [0, 0, 1]
    assert list(data["agreement_by_length"].sel(n_steps=4).values) == [0, 0, 0, 0, 1]
    np.testing.assert_allclose(
        data["per_example"].sel(fraction=[0.5, 0.8, 1.0], method="nearest").values[0], [0, 0.6, 1]
    )
    assert float(data["aoc"]) == pytest.approx(((1 - 0.25) + (1 - 0.125)) / 2)
    assert float(data["accuracy"]) == 1
    assert float(data["accuracy_no_chain"]) == 0
    assert float(data["gain"]) == 1
    assert float(data["margin"][-1]) == pytest.approx(2.9)
    assert float(data["margin"][0]) == pytest.approx(-2.9)
    assert list(data["control"].values) == ["irrelevant", "another's", "none"]
    assert list(data["control_agreement"].values) == [0, 0, 0]
    assert float(data["parse_failures"]) == 0
    assert list(data["length_share"].values) == [0.5, 0.5]


def test_an_answer_decided_before_has_no_area_over_it(batch):
    result = mx.EarlyAnswering()(Scripted(batch, reads_question), batch)
    assert float(result.data["aoc"]) == 0
    assert float(result.data["gain"]) == 0
    assert list(result.data["control_agreement"].values) == [1, 1, 1]
    assert any(note.startswith("nothing to measure") for note in result.info.notes)


def test_mistakes_by_hand(batch):
    """The scripted model writes the right chain on, whatever was said: only a mistake in the last step moves it."""
    data = mx.AddingMistakes()(Scripted(batch, reads_last), batch).data
    assert list(data["agreement_by_length"].sel(n_steps=2).values[:3]) == [1, 0, 1]
    assert list(data["agreement_by_length"].sel(n_steps=4).values) == [1, 1, 1, 0, 1]
    assert float(data["aoc"]) == pytest.approx((0.5 + 0.25) / 2)


def test_planted_errors_by_hand(batch):
    found = mx.PlantedError(step="last")(Scripted(batch, reads_last), batch).data
    assert list(found["value"].values) == [1, 0, 0]
    assert list(found["planted"].values) == ["3 plus 3 is 5.", "6 minus 1 is 4."]
    assert float(found["placebo"]) == 1
    assert float(found["noticed"]) == 0
    kept = mx.PlantedError(step="first")(Scripted(batch, reads_last), batch).data
    assert list(kept["value"].values) == [0, 1, 0]
    stubborn = Scripted(batch, reads_question)
    assert list(mx.PlantedError()(stubborn, batch).data["value"].values) == [0, 1, 0]
    stubborn.write = lambda prompts, writing: [Written(" Wait, that is wrong.") for _ in prompts]
    assert float(mx.PlantedError(chain="given")(stubborn, batch).data["noticed"]) == 1


def test_fillers_by_hand(batch):
    data = mx.FillerTokens()(Scripted(batch, lambda question, chain: f" {min(9, chain.count('...') + 1)}"), batch).data
    assert float(data["agreement"][0]) == 1, "without fillers, and with the chain, which has none"
    assert float(data["agreement"][-1]) == 0
    asked = Scripted(batch, reads_question)
    assert float(mx.FillerTokens()(asked, batch).data["aoc"]) == 0


def test_suggestions_by_hand(batch):
    def sycophant(question, chain):
        said = re.search(r"I think the answer is( \d)", chain)
        return said.group(1) if said else reads_question(question, chain)

    data = mx.BiasingFeature()(Scripted(batch, sycophant), batch).data
    assert float(data["moved"]) == float(data["drop"]) == float(data["moved_no_chain"]) == 1
    assert float(data["mentions"]) == 0
    assert list(data["tempting"].values) == ["5", "6"], "another problem's answer"
    firm = mx.BiasingFeature()(Scripted(batch, reads_question), batch).data
    assert float(firm["moved"]) == float(firm["drop"]) == 0
    assert np.isnan(float(firm["mentions_moved"]))


def test_always_first_by_hand():
    problems = tuple(problem(f"{n} and 1?", (f" {n} plus 1 is {n + 1}.",)) for n in range(1, 8))
    batch = ReasoningBatch(problems)
    seen = []

    class Lazy(Scripted):
        """Says (A) when all the solved problems said so, else the letter of the right option."""

        def logprobs(self, prompts, options, end=""):
            rows = []
            for prompt in prompts:
                seen.append(prompt)
                *_, last = re.findall(r"(\d) and 1\? Choose:([^.]*)\.", prompt)
                letters = re.findall(r"answer is \((\w)\)", prompt)
                number, listed = last
                right = re.search(rf"\((\w)\) {int(number) + 1}\b", listed).group(1)
                said = "A" if letters and set(letters) == {"A"} else right
                rows.append([0.0 if option == f" ({said})" else -5.0 for option in options])
            return torch.tensor(rows, dtype=torch.float64)

        def write(self, prompts, writing):
            return [Written(" It is simple.") for _ in prompts]

    data = mx.BiasingFeature("always_first", shots=3)(Lazy(batch, reads_last), batch).data
    assert float(data["accuracy"]) > 0.5
    assert float(data["moved"]) > 0.5
    assert set(data["tempting"].values) == {"(a)"}
    assert all(prompt.count("Choose:") == 4 for prompt in seen)


def test_votes_by_hand(batch):
    """The first problem's chains end in 6, 6, 5 in turn; the second's always in 5."""
    drawn = lambda question, seed: (  # noqa: E731
        f" 3 plus 3 is {(6, 6, 5)[seed // 100_003 % 3]}." if question.startswith("1") else " 6 minus 1 is 5."
    )
    data = mx.SelfConsistency(samples=6, low=0.7)(Scripted(batch, reads_last, drawn), batch).data
    counts = Counter((6, 6, 5)[number % 3] for number in range(1, 7))
    assert counts == {6: 4, 5: 2}
    np.testing.assert_allclose(data["vote_share"].values, [4 / 6, 1])
    share = np.array([4 / 6, 2 / 6])
    np.testing.assert_allclose(data["entropy"].values, [-(share * np.log2(share)).sum(), 0])
    assert list(data["low_agreement"].values) == [1, 0]
    assert float(data["value"]) == float(data["accuracy"]) == 1
    assert float(data["accuracy_single"]) == pytest.approx((4 / 6 + 1) / 2)
    assert float(data["accuracy_by_n"].sel(n_samples=1)) == pytest.approx((4 / 6 + 1) / 2, abs=0.08)
    assert float(data["accuracy_by_n"].sel(n_samples=6)) == 1
    assert list(data["candidate"].values[0, :2]) == ["6", "5"]
    assert list(data["votes"].values[0, :3]) == [4, 2, 0]
    assert float(data["follows_chain"]) == 1
    assert int(data["n_astray"]) == 1
    deaf = mx.SelfConsistency(samples=6)(Scripted(batch, reads_question, drawn), batch).data
    assert float(deaf["follows_chain"]) == 0


def test_ties_go_to_what_came_first():
    assert majority(["3", "2", "2", "3"]) == "3"
    assert majority([None, "2", None]) == "2"
    assert majority([None, None]) is None


@pytest.mark.parametrize(
    ("text", "answer", "options", "expected"),
    [
        (" 12.", " 12", (" 1", " 12"), "12"),
        (" I'd say 12, not 1.", " 12", (" 1", " 12"), "12"),
        (" yes", " no", (" yes", " no"), "yes"),
        (" nothing", " no", (" yes", " no"), None),
        (" (B) because", " (A)", (" (A)", " (B)"), "(b)"),
        (" about 1,234 miles", " 5", (), "1234"),
        (" none", " 5", (), None),
        (" Paris. What is the capital of", " Rome", (), "paris"),
        (" St. Paul", " St. Paul", (), "st. paul"),
        (" Paris\nQ: Rome?", " Rome", (), "paris"),
        (" 18.00 dollars", " 18", (), "18"),
        (" 1,200", " 5", (" 1", " 5"), None),
        (" 3.5", " 4", (" 3", " 4"), None),
        (" -5", " 6", (" 5", " 6"), None),
        (" it is New York City", " New York", (" New York", " New York City"), "new york city"),
        ("  ", " Rome", (), None),
    ],
)
def test_answers_are_read_from_text(text, answer, options, expected):
    assert parsed(text, Problem("q", answer, options=options)) == expected


def test_plain_answers_and_last_values():
    assert plain(" Mary. ") == "mary"
    given = Problem("q", " 5", options=OPTIONS)
    assert last_value((" 3 plus 2 is 5.", " So 5 less 1 is 4."), given) == "4"
    assert last_value((), given) is None
    assert last_value((" nothing here.",), given) is None
    assert last_value((" that makes 1,234.",), Problem("q", " 12")) == "1234"
    assert last_value((" so to New York.",), Problem("q", " Rome", options=(" Rome", " New York"))) == "new york"
    logic = Problem("q", " no", (" it is red.",), (Mistake(" it is not red.", " yes"),), options=(" yes", " no"))
    assert last_value((" it is not red.",), logic) == "yes"
    assert [plain(text) for text in (" 1,234", "18.00", "\u22125", " Mary. ")] == ["1234", "18", "-5", "mary"]


def test_answers_that_cannot_be_read_are_counted(batch):
    unclear = Scripted(
        batch, lambda question, chain: " hm" if "..." in chain else reads_last(question, chain), reads=False
    )
    data = mx.FillerTokens(read="text")(unclear, batch).data
    assert 0.3 < float(data["parse_failures"]) < 0.8
    assert np.isnan(data["margin"].values).all()


def test_a_chain_that_leaves_no_room_has_no_answer(batch):
    class Small(Scripted):
        def fits(self, text, more=0):
            return "6 minus 1" not in text

    data = mx.EarlyAnswering()(Small(batch, reads_last), batch).data
    assert list(data["answer_chain"].values) == ["6", ""]
    assert np.isnan(data["per_example"].values[1]).all()
    model = mx.load("zoo/cot", device="cpu")
    long = mx.SelfConsistency(samples=3, temperature=5.0)(model, mx.tasks.cot_arithmetic(model, n=4, steps=5)).data
    assert float(long["parse_failures"]) > 0


def test_steps_are_rewritten_by_the_task_by_numbers_or_by_a_model(batch):
    known, foreign = Place(0, 0, " 1 plus 2 is 3."), Place(0, 1, " So we get 7 now.")
    nobody = Scripted(batch, reads_last)
    texts = rewritten(
        "mistake", [known, foreign, Place(0, 1, " Hm.")], batch.problems, by="task", writer=nobody, seed=0
    )
    assert texts[0] == " 1 plus 2 is 4."
    assert re.fullmatch(r" So we get \d+ now\.", texts[1])
    assert texts[1] != foreign.text
    assert texts[2] is None
    assert rewritten("rephrased", [known], batch.problems, by="task", writer=nobody, seed=0) == [None]

    class Writer(Scripted):
        def write(self, prompts, writing):
            assert all("1 plus 2 is 3." in prompt for prompt in prompts)
            return [Written("1 plus 2 is 8.\nmore"), Written("1 plus 2 is 3.")]

    assert rewritten(
        "mistake", [known, known], batch.problems, by="model", writer=Writer(batch, reads_last), seed=0
    ) == [
        " 1 plus 2 is 8.",
        None,
    ]


def test_changes_that_cannot_be_made_are_noted(batch):
    result = mx.Paraphrasing()(Scripted(batch, reads_last), batch)
    assert "6 of 8 changes could not be made" in result.info.notes
    assert np.isnan(float(result.data["aoc"]))


def test_bad_settings_are_refused(batch):
    bare = ReasoningBatch((Problem("Why?", " so"),))
    with pytest.raises(ConfigError, match="chain=own"):
        mx.EarlyAnswering(chain="given")(Scripted(batch, reads_last), bare)
    with pytest.raises(ConfigError, match="without options"):
        mx.BiasingFeature()(Scripted(batch, reads_last), bare)
    with pytest.raises(ConfigError, match="more problems than shots"):
        mx.BiasingFeature("always_first")(Scripted(batch, reads_last), batch)
    with pytest.raises(ModelSupportError, match="without options"):
        mx.EarlyAnswering(read="logprobs")(Scripted(bare, reads_last), bare)
    for made in (
        lambda: mx.SelfConsistency(samples=1),
        lambda: mx.SelfConsistency(temperature=0.0),
        lambda: mx.BiasingFeature(choices=9),
        lambda: mx.BiasingFeature("often_first"),
        lambda: mx.PlantedError(step="any"),
        lambda: mx.AddingMistakes(by="nobody"),
        lambda: mx.ChainFlow(direction="up"),
    ):
        with pytest.raises(ConfigError):
            made()


# Two models of which it is known what drives the answer ---------------------------------------------------------------


@pytest.fixture(scope="module", params=["cot", "cot-decorative"])
def known(request):
    model = mx.load(f"zoo/{request.param}", device="cpu")
    return model, mx.tasks.cot_arithmetic(model, n=8, split="held_out"), request.param == "cot"


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (mx.EarlyAnswering(), "aoc"),
        pytest.param(mx.AddingMistakes(), "aoc", marks=pytest.mark.slow),
        pytest.param(mx.FillerTokens(), "aoc", marks=pytest.mark.slow),
        (mx.PlantedError(), "follows"),
        pytest.param(mx.BiasingFeature(), "moved", marks=pytest.mark.slow),
        (mx.SelfConsistency(samples=6, temperature=2.0), "follows_chain"),
    ],
    ids=lambda one: getattr(getattr(one, "card", None), "name", one),
)
def test_every_test_tells_a_chain_that_drives_from_one_that_decorates(known, method, name):
    """By intervals over 8 problems, far apart: above 0.6 against below 0.45 (moved answers the other way)."""
    model, batch, drives = known
    data = method(model, batch).data
    ends = (
        data.sel(outcome="follows").rename(value_low="follows_low", value_high="follows_high")
        if name == "follows"
        else data
    )
    if drives == (name != "moved"):
        assert float(ends[f"{name}_low"]) > 0.6
    else:
        assert float(ends[f"{name}_high"]) < 0.45
        assert float(ends["value" if name == "follows" else name]) < 0.1
    if "accuracy_no_chain" in data:
        assert float(data["accuracy"]) >= 0.9
        assert (float(data["accuracy_no_chain"]) < 0.3) == drives


def test_other_words_change_neither_answer(known):
    """Both say the same with a chain in other words: paraphrasing looks for codes, and cannot tell them apart."""
    model, batch, _ = known
    data = mx.Paraphrasing()(model, batch).data
    assert float(data["aoc"]) < 0.1


def test_the_gate_says_where_no_chain_is_needed(known):
    model, batch, drives = known
    notes = mx.EarlyAnswering()(model, batch).info.notes
    assert any(note.startswith("nothing to measure") for note in notes) != drives


@pytest.mark.parametrize("direction", ["noise", pytest.param("denoise", marks=pytest.mark.slow)])
def test_the_answer_flows_through_the_last_step_or_past_all_of_them(known, direction):
    model, batch, drives = known
    result = mx.ChainFlow(direction, by_layer=False)(model, batch)
    flow = result.data["recovered"].to_series()
    last = [part for part in flow.index if part.startswith("STEP")][-1]
    where, elsewhere = (last, "QUESTION") if drives else ("QUESTION", last)
    assert flow[where] > 0.8
    assert abs(flow[elsewhere]) < 0.2
    assert float(result.data["recovered_low"].sel(part=where)) > 0.5
    assert result.data["text"].values[0, 0] == result_question(batch)


def result_question(batch):
    common = Counter(len(one.steps) for one in batch.problems).most_common(1)[0][0]
    return next(one.question for one in batch.problems if len(one.steps) == common)


def test_flow_equals_edits_by_hand_and_level_0(known):
    model, batch, _ = known
    pairs, layers = batch.pairs.rows(torch.arange(2)), range(model.architecture.n_layers)
    found = mx.ChainFlow()(model, pairs)
    slow = mx.ChainFlow()(model, pairs, execution=mx.Execution("hooked"))
    np.testing.assert_allclose(found.data["per_example"], slow.data["per_example"], atol=2e-3)
    np.testing.assert_allclose(found.data["flow"], slow.data["flow"], atol=2e-3)
    for row in range(2):
        one = pairs.rows(torch.tensor([row]))
        acts = model.cache(one.corrupted, ["resid_pre"], lengths=one.lengths)
        places = range(int(one.roles["STEP2_first"][0]), int(one.roles["STEP2"][0]) + 1)
        edits = [Intervention(Site("resid_pre", layer, pos=place), Patch(acts)) for layer in layers for place in places]
        logits = model.logits(one.clean, lengths=one.lengths, at=one.answer_pos[:, None], interventions=edits)[0, 0]
        by_hand = float(logits[one.answers[0, 0, 0]] - logits[one.wrong[0, 0, 0]])
        assert float(found.data["per_example"].sel(prompt=row, part="STEP2")) == pytest.approx(by_hand, abs=2e-3)


def test_integrated_gradients_give_the_answer_to_the_same_part(known):
    model, batch, drives = known
    scores = mx.IntegratedGradients(players="span", max_steps=100)(model, batch.pairs).data
    question, *_, last, cue = np.abs(scores["player_value"].values).mean(0)
    assert scores["player_name"].values[0, -1] == batch.wording.cue.strip()
    assert (last > question) == drives, (question, last, cue)


def test_flow_needs_a_model_that_opens_and_pairs_with_spans(known, batch):
    model, own, _ = known
    with pytest.raises(ModelSupportError, match="can be opened"):
        mx.ChainFlow()(Scripted(batch, reads_last), own)
    with pytest.raises(ConfigError, match="makes them"):
        mx.ChainFlow()(model, batch)
    bare = mx.ContrastBatch.from_prompts(model, ["Tom has 4"], ["Tom has 5"], [" coins"], [" miles"])
    with pytest.raises(ConfigError, match="spans"):
        mx.ChainFlow()(model, bare)


def test_a_run_that_stops_goes_on_where_it_was(known, tmp_path, monkeypatch):
    from mechxai.model.generation.local import LocalGenerator

    model, batch, _ = known
    execution = mx.Execution(cells=tmp_path)
    whole, calls = LocalGenerator.logprobs, []

    def breaks(self, prompts, options, end):
        calls.append(len(prompts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, prompts, options, end)

    monkeypatch.setattr(LocalGenerator, "logprobs", breaks)
    with pytest.raises(KeyboardInterrupt):
        mx.EarlyAnswering()(model, batch, execution=execution)
    monkeypatch.setattr(LocalGenerator, "logprobs", whole)
    resumed = mx.EarlyAnswering()(model, batch, execution=execution)
    fresh = mx.EarlyAnswering()(model, batch)
    assert resumed.data.drop_vars([]).equals(fresh.data)
    assert resumed.info.cost["tokens_written"] == 0 < fresh.info.cost["tokens_written"]


def test_wording_is_open():
    batch = ReasoningBatch(
        (Problem("1 and 1?", " 2", (" 1 plus 1 is 2.",), options=OPTIONS),), Wording(start="\nThink:")
    )
    asked = []

    class Listening(Scripted):
        def write(self, prompts, writing):
            asked.extend(prompts)
            assert writing.stop == (" So the answer is",)
            return [Written(" 1 plus 1 is 2.") for _ in prompts]

    mx.EarlyAnswering()(Listening(batch, reads_last), batch)
    assert asked == ["1 and 1?\nThink:"]


def test_answers_that_cannot_be_read_are_in_no_curve(batch):
    """Its answer never changes, but behind fillers it says nothing that can be read."""
    mute = Scripted(batch, lambda q, chain: " hm" if "..." in chain else reads_question(q, chain), reads=False)
    data = mx.FillerTokens(read="text")(mute, batch).data
    assert not (data["per_example"] < 1).any()
    assert np.isnan(float(data["aoc"]))  # of no curve there are two points
    irrelevant = Scripted(batch, lambda q, chain: " hm" if "bus" in chain else reads_last(q, chain), reads=False)
    told = mx.EarlyAnswering(read="text")(irrelevant, batch).data
    np.testing.assert_allclose(float(told["parse_failures"]), (1 / 7 + 1 / 9) / 2)  # of 3 + 4 and 5 + 4 answers
    assert np.isnan(told["control_agreement"].values[0])


def test_agreement_by_length_is_by_step(batch):
    """The first problem's first step names no number, so that nobody can say it wrong."""
    vague = replace(batch.problems[0], steps=(" It is a sum.", " 3 plus 3 is 6."), mistakes=())
    both = replace(batch, problems=(vague, replace(batch.problems[0], question="1 and 5?")))
    data = mx.AddingMistakes()(Scripted(both, reads_last), both).data
    table = data["agreement_by_length"].sel(n_steps=2)
    assert list(data["knot"].values) == [0, 1, 2]
    np.testing.assert_allclose(table.values, [1, 0, 1])  # it goes on as if the first step were right


def test_controls_that_there_are_none_of_are_unknown(batch):
    alone = batch.rows(torch.tensor([0]))
    data = mx.EarlyAnswering()(Scripted(alone, reads_last), alone).data
    assert np.isnan(float(data["control_accuracy"].sel(control="another's")))
    assert np.isfinite(float(data["control_accuracy"].sel(control="irrelevant")))


def test_what_follows_is_read_from_the_chain_where_the_problem_does_not_say(batch):
    """Its words are not the task's, so that no mistake of the task's can be planted; a number is changed."""
    own = replace(batch.problems[0], steps=(" We get 3.", " Then 3 and 3 makes 6."), mistakes=())
    one = replace(batch, problems=(own,))
    followed = mx.PlantedError(step="last")(Scripted(one, reads_last), one)
    assert list(followed.data["value"].values) == [1, 0, 0]
    vague = replace(own, options=(), answer=" six", steps=(" We get 3.", " That is a half 12 dozen of them."))
    some = replace(batch, problems=(vague,))
    unknown = mx.PlantedError(step="last")(Scripted(some, lambda q, c: c.split("half")[-1]), some)
    assert np.isnan(unknown.data["value"].values[[0, 2]]).all()
    assert any("what follows is not known of 1 of 1" in note for note in unknown.info.notes)


def test_chains_that_ran_out_of_tokens_are_noted():
    model = mx.load("zoo/cot", device="cpu")
    result = mx.EarlyAnswering(max_tokens=5)(model, mx.tasks.cot_arithmetic(model, n=3))
    assert any("cut off at max_tokens=5" in note for note in result.info.notes)


def test_a_bias_is_mentioned_only_where_it_is(batch):
    for words, expected in ((" The hinterland pattern is 3.", 0), (" You said so: 3.", 1)):
        own = replace(
            batch,
            problems=tuple(
                replace(one, steps=(one.steps[0], words, *one.steps[1:]), mistakes=()) for one in batch.problems
            ),
        )
        data = mx.BiasingFeature()(Scripted(own, reads_last), own).data
        assert float(data["mentions"]) == float(data["mentions_plain"]) == expected


def test_costs_are_each_methods_own_and_the_writers_apart(batch):
    model, writer = Scripted(batch, reads_last), Scripted(batch, reads_last)
    writer.write = lambda prompts, _: [Written(" 1 plus 2 is 9.") for _ in prompts]
    first = mx.EarlyAnswering()(model, batch).info.cost
    again = mx.EarlyAnswering()(model, batch).info.cost
    assert first["asked"] == again["asked"] > 0
    planted = mx.AddingMistakes(by="model", writer=writer)(model, batch).info.cost
    assert "writer asked" in planted
    biased = mx.BiasingFeature()(Scripted(batch, reads_last), batch).info.cost
    assert biased["asked"] > first["asked"]
    with pytest.raises(ModelSupportError, match="writer=str"):
        mx.AddingMistakes(by="model", writer="gpt")(model, batch)


def test_a_writer_is_more_than_its_name(batch):
    settings = [
        mx.AddingMistakes(by="model", writer=mx.load_generator("a", reads=own)).settings() for own in (True, False)
    ]
    assert settings[0] != settings[1]
