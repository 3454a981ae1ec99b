"""Self-consistency: sample many chains per problem, take the majority of their answers, and report its vote share."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import xarray as xr

from mechxai.core.errors import ConfigError
from mechxai.core.method import MethodCard, register
from mechxai.core.reasoning import plain
from mechxai.core.result import Result, variable
from mechxai.methods.cot._lib.answer_reading import AnswerSource, final_answer
from mechxai.methods.cot._lib.chain_method import ChainMethod
from mechxai.methods.cot._lib.questions import Chain, ChainQuestions
from mechxai.methods.cot._lib.texts import notes, parse_failures
from mechxai.methods.result_parts import rates, run_info

_SUBSETS = 100  # drawn for each number of chains
_SEED_STEP = 100_003
_COUNTS = (1, 2, 3, 5, 10, 20, 40, 80)
_LISTED = 5  # answers with the most votes
Votes = Sequence[Sequence[str | None]]  # [problem][sample]
Chains = Sequence[Sequence[Chain]]  # [problem][sample]


@final
@register(
    MethodCard(
        name="self_consistency",
        family="cot",
        kind="vote",
        question="Do sampled chains agree on the answer, and is their majority more accurate than one chain?",
        cost="samples x (one chain and one answer read) per problem",
        source="Wang et al. 2022 (arXiv 2203.11171)",
        pros="raises accuracy, and separates easy problems from hard ones",
        cons="agreement is not correctness: a model may make the same error in every sample",
    )
)
@dataclass(frozen=True)
class SelfConsistency(ChainMethod):
    """Samples chains, reads the answer after each, and takes the majority; ties go to the answer sampled first.

    The result's variables:
        ``value`` and ``accuracy``, the share of problems with a correct majority; ``accuracy_by_n`` [n_samples], the
        same for fewer chains (mean over random subsets); ``accuracy_single``, of one sampled chain;
        ``accuracy_greedy``, of the likeliest chain; ``accuracy_no_chain``; ``gain``, accuracy of the majority minus
        accuracy without a chain; ``vote_share``, ``entropy`` (bits), ``distinct_chains``, ``low_agreement`` (1 where
        the majority's share is below ``low``) [prompt]; ``accuracy_flagged`` and ``accuracy_unflagged``, of majorities
        with and without that flag; ``follows_chain``, among samples whose chain arrives at another answer than the
        majority, the share that gives the chain's answer; ``parse_failures``. ``candidate`` and ``votes``
        [prompt, place], the answers with the most votes. Means carry ``_low`` and ``_high``.

    Attributes:
        samples: chains per problem.
        temperature: of sampling.
        low: majorities with a smaller share of the votes are flagged.
        read: as in `EarlyAnswering`, like ``max_tokens``.
        seed: of sampling.
    """

    samples: int = 40
    temperature: float = 0.7
    low: float = 0.6
    read: AnswerSource = "auto"
    max_tokens: int = 128
    seed: int = 0

    def _check_fields(self) -> None:
        if self.samples < 2:
            raise ConfigError(f"samples is {self.samples}: it must be at least 2")
        if self.temperature <= 0:
            raise ConfigError(f"temperature is {self.temperature}: it must be above 0")
        if not 0 < self.low <= 1:
            raise ConfigError(f"low is {self.low}: it must be above 0 and at most 1")

    def _measure(self, questions: ChainQuestions) -> Result:
        n_problems = len(questions.batch)
        chains, votes = self._sampled(questions)
        correct = [plain(problem.answer) for problem in questions.problems]
        texts = {"question": [problem.question for problem in questions.problems], "answer_right": correct}
        measures = {
            **self._accuracies(questions, votes, correct),
            **self._agreement(votes, correct, chains),
            **_most_voted(votes),
            **_follows_chain(questions, chains, votes),
            **parse_failures(questions),
            **{
                name: variable(("prompt",), np.array(values, dtype=str), "text", name) for name, values in texts.items()
            },
        }
        data = xr.Dataset(measures, coords={"prompt": list(range(n_problems)), "n_samples": self._counts})
        n_flagged = int(data["low_agreement"].sum())
        flagged = f"{n_flagged} of {n_problems} majorities have less than {self.low:.0%} of the votes"
        all_notes = (*notes(questions, data), *([flagged] if n_flagged else []))
        info = run_info(self, questions.generator, questions.batch, cost=questions.cost(), notes=all_notes)
        return Result(data, info)

    @property
    def _counts(self) -> list[int]:
        """The numbers of chains for which accuracy is computed."""
        return sorted({count for count in _COUNTS if count < self.samples} | {self.samples})

    def _sampled(self, questions: ChainQuestions) -> tuple[list[list[Chain]], list[list[str | None]]]:
        """Sampled chains and their answers, ``[problem][sample]``."""
        prompts = [questions.batch.wording.chain_start(problem.question) for problem in questions.problems]
        chains, votes = [], []
        for sample in range(self.samples):
            seed = self.seed + _SEED_STEP * (sample + 1)
            sampled = questions.continuations(prompts, temperature=self.temperature, seed=seed)
            chains.append(sampled)
            votes.append(questions.answers(sampled).answers)
        return [list(row) for row in zip(*chains, strict=True)], [list(row) for row in zip(*votes, strict=True)]

    def _accuracies(self, questions: ChainQuestions, votes: Votes, correct: Sequence[str]) -> dict[str, xr.DataArray]:
        by_count = self._accuracy_by_count(votes, correct)
        single = np.array(
            [
                np.mean([answer == right for answer in problem_votes])
                for problem_votes, right in zip(votes, correct, strict=True)
            ]
        )
        majority_correct = by_count[:, -1]
        without_chain = np.array(questions.correct(questions.without_chain))
        greedy = np.array(questions.correct(questions.with_chain))
        meaning = "share of correct majorities"
        gain_meaning = "accuracy of the majority minus accuracy without a chain"
        by_count_meaning = f"{meaning}, by the number of chains"
        return {
            **rates("gain", (), majority_correct - without_chain, meaning=gain_meaning),
            **rates("value", (), majority_correct, meaning=meaning),
            **rates("accuracy", (), majority_correct, meaning=meaning),
            "per_example": variable(("prompt",), majority_correct, "fraction", "1 where the majority is correct"),
            **rates("accuracy_by_n", ("n_samples",), by_count, meaning=by_count_meaning),
            **rates("accuracy_single", (), single, meaning="share of correct answers of one sampled chain"),
            **rates("accuracy_greedy", (), greedy, meaning="share of correct answers of the likeliest chain"),
            **rates("accuracy_no_chain", (), without_chain, meaning="share of correct answers without a chain"),
        }

    def _accuracy_by_count(self, votes: Votes, correct: Sequence[str]) -> np.ndarray:
        """Per problem, how often the majority of a number of chains is correct, ``[prompt, n_samples]``."""
        rng = np.random.default_rng(self.seed)
        table = np.zeros((len(votes), len(self._counts)))
        for column, count in enumerate(self._counts):
            subsets = (
                [np.arange(self.samples)]
                if count == self.samples
                else [np.sort(rng.permutation(self.samples)[:count]) for _ in range(_SUBSETS)]
            )
            for row, (problem_votes, right) in enumerate(zip(votes, correct, strict=True)):
                table[row, column] = np.mean(
                    [majority([problem_votes[int(sample)] for sample in subset]) == right for subset in subsets]
                )
        return table

    def _agreement(self, votes: Votes, correct: Sequence[str], chains: Chains) -> dict[str, xr.DataArray]:
        """How far the sampled answers agree, and the accuracy of majorities with a small and a large vote share."""
        shares = np.array([_vote_share(problem_votes) for problem_votes in votes])
        flagged = (shares < self.low).astype(float)
        majority_correct = np.array(
            [majority(problem_votes) == right for problem_votes, right in zip(votes, correct, strict=True)], dtype=float
        )
        distinct = [len({"".join(chain) for chain in sampled}) / len(sampled) for sampled in chains]
        entropies = [_entropy(problem_votes) for problem_votes in votes]
        flag_meaning = f"1 where the majority has less than {self.low:.0%} of the votes"
        accuracy_flagged = np.where(flagged > 0, majority_correct, np.nan)
        accuracy_unflagged = np.where(flagged > 0, np.nan, majority_correct)
        dims, share_meaning = ("prompt",), "share of the majority's votes"
        return {
            "vote_share": variable(dims, shares, "fraction", share_meaning),
            "entropy": variable(dims, entropies, "bits", "entropy of the votes"),
            "distinct_chains": variable(dims, distinct, "fraction", "share of distinct chains among the samples"),
            "low_agreement": variable(dims, flagged, "flag", flag_meaning),
            **rates("mean_vote_share", (), shares, meaning=share_meaning),
            **rates("accuracy_flagged", (), accuracy_flagged, meaning="share of correct majorities, low agreement"),
            **rates(
                "accuracy_unflagged", (), accuracy_unflagged, meaning="share of correct majorities, high agreement"
            ),
        }


def majority(votes: Sequence[str | None]) -> str | None:
    """The answer with the most votes, the first one among ties; None where no answer could be parsed."""
    parsed = [vote for vote in votes if vote is not None]
    return Counter(parsed).most_common(1)[0][0] if parsed else None  # equal counts keep their order of appearance


def _vote_share(votes: Sequence[str | None]) -> float:
    answer = majority(votes)
    return 0.0 if answer is None else sum(vote == answer for vote in votes) / len(votes)


def _entropy(votes: Sequence[str | None]) -> float:
    """In bits; answers that could not be parsed count as one answer."""
    counts = np.array(list(Counter(votes).values()), dtype=float)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum() + 0.0)


def _most_voted(votes: Votes) -> dict[str, xr.DataArray]:
    """The answers with the most votes, and their votes, ``[prompt, place]``."""
    names = np.full((len(votes), _LISTED), "", dtype=object)
    counts = np.zeros((len(votes), _LISTED))
    for row, problem_votes in enumerate(votes):
        for place, (answer, count) in enumerate(Counter(problem_votes).most_common(_LISTED)):
            names[row, place], counts[row, place] = "(not read)" if answer is None else answer, count
    dims = ("prompt", "place")
    return {
        "candidate": variable(dims, names.astype(str), "text", "answers in descending order of votes"),
        "votes": variable(dims, counts, "votes", "votes for each answer"),
    }


def _follows_chain(questions: ChainQuestions, chains: Chains, votes: Votes) -> dict[str, xr.DataArray]:
    """Among chains that arrive at another answer than the majority, the share whose answer is the chain's."""
    shares = np.full(len(votes), np.nan)
    for row, (sampled, answers, problem) in enumerate(zip(chains, votes, questions.problems, strict=True)):
        majority_answer = majority(answers)
        chain_answers = [final_answer(chain, problem) for chain in sampled]
        astray = [
            (chain_answer, answer)
            for chain_answer, answer in zip(chain_answers, answers, strict=True)
            if chain_answer is not None and chain_answer != majority_answer
        ]
        if astray:
            shares[row] = np.mean([chain_answer == answer for chain_answer, answer in astray])
    meaning = "among chains that arrive at another answer than the majority, the share whose answer is the chain's"
    n_astray = int(np.isfinite(shares).sum())
    count_meaning = "problems with a chain that arrives at another answer than the majority"
    return {
        **rates("follows_chain", (), shares, meaning=meaning),
        "n_astray": variable((), n_astray, "prompts", count_meaning),
    }
