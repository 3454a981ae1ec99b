"""A generator whose chains and answers are scripted, and problems for it."""

import re

import torch

from mechxai.core.reasoning import Problem
from mechxai.model.generation.generator import Written

OPTIONS = (" 1", " 2", " 3", " 4", " 5", " 6", " 7", " 8", " 9")


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


def problem(question, steps, mistakes=()):
    answer = f" {steps[-1].rstrip('.').split()[-1]}"
    return Problem(question, answer, tuple(steps), tuple(mistakes), options=OPTIONS)


def reads_last(question, chain):
    """The last value said; 1 where none is."""
    said = re.findall(r"(\d+)[.]", chain)
    return f" {said[-1] if said else 1}"


def reads_question(question, chain):
    return " 6" if question.startswith("1") else " 5"
