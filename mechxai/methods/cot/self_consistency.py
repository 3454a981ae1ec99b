"""Self-consistency: many chains are drawn, the answers vote, and the vote says how sure the model is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import xarray as xr

from mechxai.core.errors import ConfigError
from mechxai.core.method import Method, MethodCard, register
from mechxai.core.reasoning import ReasoningBatch, plain
from mechxai.core.result import Result, variable
from mechxai.engine.execution import Execution
from mechxai.methods.cot._lib.answer_reading import last_value
from mechxai.methods.cot._lib.questions import ChainQuestions, Steps, check_asking
from mechxai.methods.cot._lib.texts import notes, parse_failures
from mechxai.methods.result_parts import rates, run_info
from mechxai.model.generation.generator import Generator
from mechxai.model.hooked_model import HookedModel

_SUBSETS = 100  # drawn for each number of chains
_SEED_STEP = 100_003
_COUNTS = (1, 2, 3, 5, 10, 20, 40, 80)
_SHOWN = 5  # answers of a vote that are listed
Votes = Sequence[Sequence[str | None]]  # [problem][sample]


@final
@register(
    MethodCard(
        name="self_consistency",
        family="cot",
        kind="vote",
        question="Do chains drawn at random agree on the answer, and is their majority right more often than one?",
        cost="samples x (a chain and a reading) per problem",
        source="Wang et al. 2022 (arXiv 2203.11171)",
        pros="raises accuracy, and tells easy problems from hard ones",
        cons="agreement is no truth: a model may be wrong each time alike",
    )
)
@dataclass(frozen=True)
class SelfConsistency(Method):
    """Draws chains, reads an answer behind each, and lets them vote. Of answers tied, the one drawn first wins.

    Attributes:
        samples: chains per problem.
        temperature: of the draws.
        low: a vote share below it is flagged.
        read: as in `EarlyAnswering`; likewise ``max_tokens``.
        seed: of the draws.
    """

    takes: ClassVar[type] = ReasoningBatch

    samples: int = 40
    temperature: float = 0.7
    low: float = 0.6
    read: str = "auto"
    max_tokens: int = 128
    seed: int = 0

    def _check_fields(self) -> None:
        check_asking(self.read, "own", self.max_tokens)
        if self.samples < 2 or self.temperature <= 0 or not 0 < self.low <= 1:
            raise ConfigError(
                "self_consistency",
                got=f"samples={self.samples}, temperature={self.temperature}, low={self.low}",
                allowed="2 or more samples, a temperature above 0, low above 0 and up to 1",
            )

    def __call__(
        self,
        model: HookedModel | Generator,
        batch: ReasoningBatch,
        *,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> Result:
        """The votes.

        Returns:
            ``value`` and ``accuracy``, the share of problems whose majority is right; ``accuracy_by_n`` [n_samples], of
            majorities of fewer chains (means over random subsets); ``accuracy_single``, of one chain;
            ``accuracy_greedy``, of the likeliest chain; ``accuracy_no_chain``; ``gain``, by how much the majority is
            right more often than that; ``vote_share``, ``entropy`` (bits), ``distinct_chains``, ``low_agreement`` (1
            where the majority has less than ``low``) [prompt]; ``accuracy_flagged`` and ``accuracy_unflagged``, of
            majorities so flagged and others; ``follows_chain``, of samples whose own chain ends in another value than
            the majority's, the share that answers that value; ``parse_failures``. ``candidate`` and ``votes``
            [prompt, place], the answers with most votes. Means carry ``_low`` and ``_high``.

        Raises:
            ModelSupportError: a model that does not write, or ``read=logprobs`` of one without log-probabilities.
        """
        asking = ChainQuestions(model, batch, execution, read=self.read, max_tokens=self.max_tokens)
        chains, votes = self._drawn(asking)
        right = [plain(problem.answer) for problem in asking.problems]
        data = {
            **self._accuracies(asking, votes, right),
            **self._agreement(votes, right, chains),
            **_listed(votes),
            **_follows(asking, chains, votes),
        }
        data |= parse_failures(asking)
        texts = {"question": [problem.question for problem in asking.problems], "answer_right": right}
        data |= {name: variable(("prompt",), np.array(own, dtype=str), "text", name) for name, own in texts.items()}
        coords = {"prompt": list(range(len(batch))), "n_samples": self._counts}
        flagged = int(data["low_agreement"].sum())
        note = (f"{flagged} of {len(batch)} majorities have less than {self.low:.0%} of the votes",) if flagged else ()
        whole = xr.Dataset(data, coords=coords)
        info = run_info(self, asking.generator, batch, cost=asking.cost(), notes=(*notes(asking, whole), *note))
        return Result(whole, info)

    @property
    def _counts(self) -> list[int]:
        return sorted({count for count in _COUNTS if count < self.samples} | {self.samples})

    def _drawn(self, asking: ChainQuestions) -> tuple[list[list[Steps]], list[list[str | None]]]:
        """Chains and answers, ``[problem][sample]``."""
        asked = [asking.batch.wording.chain_start(problem.question) for problem in asking.problems]
        chains, votes = [], []
        for sample in range(self.samples):
            seed = self.seed + _SEED_STEP * (sample + 1)
            own = asking.continued(asked, temperature=self.temperature, seed=seed)
            chains.append(own)
            votes.append(asking.answers(own).answers)
        return [list(of) for of in zip(*chains, strict=True)], [list(of) for of in zip(*votes, strict=True)]

    def _accuracies(self, asking: ChainQuestions, votes: Votes, right: Sequence[str]) -> dict[str, xr.DataArray]:
        generator = np.random.default_rng(self.seed)
        table = np.zeros((len(votes), len(self._counts)))
        for place, count in enumerate(self._counts):
            subsets = (
                [np.arange(self.samples)]
                if count == self.samples
                else [np.sort(generator.permutation(self.samples)[:count]) for _ in range(_SUBSETS)]
            )
            for row, (own, answer) in enumerate(zip(votes, right, strict=True)):
                table[row, place] = np.mean(
                    [majority([own[int(one)] for one in chosen]) == answer for chosen in subsets]
                )
        share = {"units": "fraction"}
        single = np.array(
            [np.mean([answer == truth for answer in own]) for own, truth in zip(votes, right, strict=True)]
        )
        meaning, unaided = "share of right majorities", np.array(asking.right(asking.without_chain))
        better = "by how much majorities are right more often than answers without a chain"
        return {
            **rates("gain", (), table[:, -1] - unaided, meaning=better, **share),
            **rates("value", (), table[:, -1], meaning=meaning, **share),
            **rates("accuracy", (), table[:, -1], meaning=meaning, **share),
            "per_example": variable(("prompt",), table[:, -1], "fraction", "1 where the majority is right"),
            **rates("accuracy_by_n", ("n_samples",), table, meaning=f"{meaning} of so many chains", **share),
            **rates("accuracy_single", (), single, meaning="share of right answers of one drawn chain", **share),
            **rates(
                "accuracy_greedy",
                (),
                np.array(asking.right(asking.with_chain)),
                meaning="share of right answers of the likeliest chain",
                **share,
            ),
            **rates(
                "accuracy_no_chain",
                (),
                unaided,
                meaning="share of right answers without a chain",
                **share,
            ),
        }

    def _agreement(
        self, votes: Votes, right: Sequence[str], chains: Sequence[Sequence[Steps]]
    ) -> dict[str, xr.DataArray]:
        shares = np.array([_vote_share(own) for own in votes])
        flagged = (shares < self.low).astype(float)
        won = np.array([majority(own) == truth for own, truth in zip(votes, right, strict=True)], dtype=float)
        distinct = [len({"".join(steps) for steps in own}) / len(own) for own in chains]
        dims, share = ("prompt",), {"units": "fraction"}
        return {
            "vote_share": variable(dims, shares, "fraction", "share of the majority's votes"),
            "entropy": variable(dims, [_entropy(own) for own in votes], "bits", "entropy of the votes"),
            "distinct_chains": variable(dims, distinct, "fraction", "different chains among those drawn"),
            "low_agreement": variable(dims, flagged, "flag", f"1 where the majority has less than {self.low:.0%}"),
            **rates("mean_vote_share", (), shares, meaning="share of the majority's votes", **share),
            **rates(
                "accuracy_flagged",
                (),
                np.where(flagged > 0, won, np.nan),
                meaning="share of right flagged majorities",
                **share,
            ),
            **rates(
                "accuracy_unflagged",
                (),
                np.where(flagged > 0, np.nan, won),
                meaning="share of right other majorities",
                **share,
            ),
        }


def majority(votes: Sequence[str | None]) -> str | None:
    """The answer with most votes; of those tied, the one that came first. None where none could be read."""
    known = [vote for vote in votes if vote is not None]
    return Counter(known).most_common(1)[0][0] if known else None  # equal counts keep the order in which they came


def _vote_share(votes: Sequence[str | None]) -> float:
    won = majority(votes)
    return 0.0 if won is None else sum(vote == won for vote in votes) / len(votes)


def _entropy(votes: Sequence[str | None]) -> float:
    counts = np.array(list(Counter(votes).values()), dtype=float)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum() + 0.0)


def _listed(votes: Votes) -> dict[str, xr.DataArray]:
    names = np.full((len(votes), _SHOWN), "", dtype=object)
    counts = np.zeros((len(votes), _SHOWN))
    for row, own in enumerate(votes):
        for place, (answer, count) in enumerate(Counter(own).most_common(_SHOWN)):
            names[row, place], counts[row, place] = "(not read)" if answer is None else answer, count
    dims = ("prompt", "place")
    return {
        "candidate": variable(dims, names.astype(str), "text", "answers, those with most votes first"),
        "votes": variable(dims, counts, "votes", "votes for each"),
    }


def _follows(asking: ChainQuestions, chains: Sequence[Sequence[Steps]], votes: Votes) -> dict[str, xr.DataArray]:
    """Whether answers go with their own chain where that ends elsewhere than the majority."""
    found = np.full(len(votes), np.nan)
    for row, (own, answers, problem) in enumerate(zip(chains, votes, asking.problems, strict=True)):
        won = majority(answers)
        ends = [last_value(steps, problem) for steps in own]
        astray = [(end, answer) for end, answer in zip(ends, answers, strict=True) if end is not None and end != won]
        if astray:
            found[row] = np.mean([end == answer for end, answer in astray])
    meaning = "of chains that end elsewhere than the majority, the share whose answer is where they end"
    n_astray = int(np.isfinite(found).sum())
    return {
        **rates("follows_chain", (), found, units="fraction", meaning=meaning),
        "n_astray": variable((), n_astray, "prompts", "problems with a chain that ends elsewhere than the majority"),
    }
