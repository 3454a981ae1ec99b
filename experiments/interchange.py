"""Interchange-intervention training: a model learns to compute an answer as a given algorithm does.

The algorithm, for two names of which one is repeated: detect the repeated name at its second position, move it to the
end of the prompt, and answer with the other name. Each of its three variables is aligned with one head. Interchanging
the output of that head with its output on another prompt (of the same two names) sets the variable, and the model must
then give the answer of the algorithm for that value. Nodes without a variable are set to their outputs on an unrelated
prompt, and the answer must not change.

Source: Geiger et al. 2022 (arXiv 2112.00826); strict, as in Gupta et al. 2024 (arXiv 2407.14494).
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from experiments.zoo_corpus import Rows, example_rows
from mechxai.tasks import words
from mechxai.tasks.example import Example, fill, in_split
from mechxai.tasks.grammars import IOI_TEMPLATES, ioi

# The head of each variable, and the role of the variable.
ALIGNED = {(0, 0): "repeated_name", (1, 0): "repeated_name_at_end", (2, 0): "answer"}
Nodes = Bool[Tensor, "pair node"]


@dataclass(frozen=True)
class Prompts:
    """Prompts that are aligned token for token.

    Attributes:
        base: the prompts that are answered.
        source: prompts with the same two names at the same places, either of them repeated.
        stranger: prompts of the same template.
    """

    base: Rows
    source: Rows
    stranger: Rows

    def answers(self, role: str) -> Int[Tensor, " pair"]:
        """The answers of the algorithm with a variable set to its value on the source; for no role, on the base."""
        if role == "answer":
            return _at(self.source, "IO")
        if not role:
            return _at(self.base, "IO")
        same = _at(self.base, "S2") == _at(self.source, "S2")
        return torch.where(same, _at(self.base, "IO"), _at(self.base, "S1"))


def _at(rows: Rows, role: str) -> Int[Tensor, " pair"]:
    return rows.ids[torch.arange(len(rows.ids)), rows.roles[role]]


def draw_prompts(n: int, rng: random.Random, tokenizer: PreTrainedTokenizerFast, split: str = "train") -> Prompts:
    """Prompts of the templates and names of a split."""
    known = [number for number, text in enumerate(IOI_TEMPLATES) if in_split(split, text)]
    chosen = [rng.choice(known) for _ in range(n)]
    base, stranger = ([ioi(rng, split, template=template) for template in chosen] for _ in range(2))
    source = [_of_the_same_names(example, rng) for example in base]
    return Prompts(*(example_rows(examples, rng, tokenizer) for examples in (base, source, stranger)))


def _of_the_same_names(example: Example, rng: random.Random) -> Example:
    """Another prompt of the template with the same two names at their places and other words at random."""
    io, subject = (example.clean[slice(*example.spans[role])].strip() for role in ("IO", "S1"))
    first, second = (io, subject) if example.spans["IO"] < example.spans["S1"] else (subject, io)
    repeated, other = (subject, io) if rng.random() < 0.5 else (io, subject)
    rest = {"PLACE": words.PLACES, "OBJECT": words.OBJECTS, "OBJECT1": words.OBJECTS}
    filled = {slot: rng.choice(known) for slot, known in rest.items()}
    text, spans = fill(example.template, {"A": first, "B": second, "S2": repeated, **filled})
    places = {"IO": spans["A" if first == other else "B"], "S1": spans["A" if first == repeated else "B"]}
    return Example(text, text, (f" {other}",), (f" {repeated}",), {**places, "S2": spans["S2"]}, example.template)


def nodes(model: GPT2LMHeadModel) -> list[tuple[int, int]]:
    """Every head as (layer, head), and the MLP of each layer as (layer, -1)."""
    config = model.config
    return [(layer, head) for layer in range(config.n_layer) for head in (*range(config.n_head), -1)]


def interchange_loss(
    model: GPT2LMHeadModel, n: int, rng: random.Random, tokenizer: PreTrainedTokenizerFast
) -> tuple[Tensor, Tensor]:
    """Cross-entropy with the answers of the algorithm after setting one variable, and after setting idle nodes.

    Cost: four forward passes per prompt.
    """
    prompts = draw_prompts(n, rng, tokenizer)
    known = nodes(model)
    idle = torch.tensor([node not in ALIGNED for node in known])
    generator = torch.Generator().manual_seed(rng.randrange(2**62))
    losses = []
    for role, chosen in _choices(n, known, idle, generator):
        other = prompts.source if role else prompts.stranger
        logits = run_with(model, prompts.base, computed(model, other.ids), chosen)
        losses.append(F.cross_entropy(logits, prompts.answers(role)))
    return losses[0], losses[1]


def _choices(
    n: int, known: list[tuple[int, int]], idle: Bool[Tensor, " node"], generator: torch.Generator
) -> Iterator[tuple[str, Nodes]]:
    """One variable for all prompts; then, for each prompt, a random share of the idle nodes, often all of them.

    Yields:
        The role of the variable (empty for idle nodes), and the chosen nodes.
    """
    place = list(ALIGNED)[int(torch.randint(len(ALIGNED), (), generator=generator))]
    yield ALIGNED[place], torch.tensor([node == place for node in known]).expand(n, -1)
    share = 0.3 + torch.rand(n, 1, generator=generator)
    yield "", idle & (torch.rand(n, len(known), generator=generator) < share)


def computed(model: GPT2LMHeadModel, ids: Int[Tensor, "pair pos"]) -> list[Float[Tensor, "pair pos width"]]:
    """The outputs of heads (before the output matrix) and MLPs, layer by layer."""
    outputs: list[Tensor] = []

    def record(_layer: int, value: Tensor) -> Tensor:
        outputs.append(value)
        return value

    with _hooked_outputs(model, record):
        model(input_ids=ids, use_cache=False)
    return outputs


def run_with(
    model: GPT2LMHeadModel, base: Rows, values: list[Float[Tensor, "pair pos width"]], chosen: Nodes
) -> Float[Tensor, "pair vocab"]:
    """Logits at the end of prompts, with the chosen nodes set to other values at every position."""
    heads, width = model.config.n_head, model.config.n_embd // model.config.n_head
    waiting = enumerate(values)  # heads, then the MLP, of each layer

    def interchange(layer: int, value: Tensor) -> Tensor:
        at, other = next(waiting)
        columns = chosen[:, layer * (heads + 1) : (layer + 1) * (heads + 1)]
        mask = columns[:, heads:] if at % 2 else columns[:, :heads].repeat_interleave(width, 1)
        return torch.where(mask[:, None], other[:, : value.shape[1]], value)

    with _hooked_outputs(model, interchange):
        logits = model(input_ids=base.ids, use_cache=False).logits
    return logits[torch.arange(len(logits)), base.roles["END"]]


@contextmanager
def _hooked_outputs(model: GPT2LMHeadModel, through: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Replaces the outputs of heads and MLPs by those of a function, in the order of computation.

    Yields:
        With the hooks installed.
    """
    handles = []
    for layer, block in enumerate(model.transformer.h):
        handles += [
            block.attn.c_proj.register_forward_pre_hook(lambda _module, args, at=layer: (through(at, args[0]),)),
            block.mlp.register_forward_hook(lambda _module, _args, out, at=layer: through(at, out)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def agreement(model: GPT2LMHeadModel, n: int, seed: int, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Share of held-out prompts on which the model answers as the algorithm does, for each intervention.

    Keys: ``unchanged``, one per variable, and ``idle``: all nodes without a variable at once.
    """
    with torch.no_grad():
        prompts, known = draw_prompts(n, random.Random(seed), tokenizer, split="held_out"), nodes(model)
        interventions = {
            "unchanged": ("", torch.zeros(len(known), dtype=torch.bool)),
            **{role: (role, torch.tensor([node == place for node in known])) for place, role in ALIGNED.items()},
            "idle": ("", torch.tensor([node not in ALIGNED for node in known])),
        }
        shares = {}
        for name, (role, chosen) in interventions.items():
            values = computed(model, (prompts.source if role else prompts.stranger).ids)
            answers = run_with(model, prompts.base, values, chosen.expand(n, -1)).argmax(-1)
            shares[name] = round(float((answers == prompts.answers(role)).double().mean()), 3)
    return shares
