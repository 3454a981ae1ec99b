"""Write the two bundled models with hand-set weights: ``python -m experiments.handmade_zoo``.

Both are attention-only and have no normalisation, so the input and output of every head are known exactly: the residual
stream consists of named parts (`INDUCTION_PARTS`, `IOI_PARTS`); a head compares parts and copies parts into others
(`Head`). Half precision represents every weight exactly. Needs TransformerLens 3.9, since the hash on the card covers
its parameters.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from experiments.zoo_corpus import SPECIALS, grammar_words, word_tokenizer
from mechxai.model.hooked_model import HookedModel
from mechxai.model.load import load
from mechxai.model.zoo import native
from mechxai.tasks.grammars import ioi
from mechxai.tasks.words import NAMES

ZOO = Path(__file__).parent.parent / "mechxai" / "model" / "zoo"
N_CTX, N_HEADS, D_HEAD = 64, 4, 36  # attention scores are divided by 6
CODE, FIRST = 16, len(SPECIALS)  # dimensions of a code; the first token that is a word
PERIOD = 24  # of the repeated sequences the induction model is measured on
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstv" for vowel in "aeiou"][: 64 - FIRST]


@dataclass(frozen=True)
class Head:
    """The function of one head.

    Attributes:
        role: its role in the circuit, or, in brackets, the reason for having none (`WHY_INACTIVE`).
        looks: (query part, key part, gain): their agreement, times the gain, is added to the attention score.
            Without a query part the gain itself is the query at every position (a bias).
        copies: (source, target): a part of the attended position is added to a part of the residual stream; without a
            target it stops at the head, without a source nothing arrives. Every pair uses head dimensions of its own.
    """

    role: str
    looks: tuple[tuple[str, str, float], ...] = ()
    copies: tuple[tuple[str, str], ...] = ()


WHY_INACTIVE = {
    "(unread)": "writes only into a part of the residual stream that nobody reads",
    "(zero)": "all its weights are zero",
    "(silent)": "W_O is zero",
    "(crossed)": "W_V and W_O use different head dimensions, so their product is zero",
    "(empty)": "its values come from a part of the residual stream that is still empty in its layer",
}
INDUCTION_PARTS = {"token": CODE, "pos": CODE, "pos_before": CODE, "previous": CODE, "out": CODE, "junk": CODE}
# A score of 6 * 16 / 6 = 16 where codes agree, and at most 4 elsewhere.
INDUCTION_HEADS = {
    "a0.h0": Head("(unread)", (("pos", "pos", 6.0),), (("token", "junk"),)),
    "a0.h1": Head("(zero)"),
    "a0.h2": Head("previous_token", (("pos_before", "pos", 6.0),), (("token", "previous"),)),
    "a0.h3": Head("(crossed)", (("token", "token", 6.0),), (("token", ""), ("", "out"))),
    "a1.h0": Head("(unread)", (("token", "previous", 6.0),), (("token", "junk"),)),
    "a1.h1": Head("induction", (("token", "previous", 6.0),), (("token", "out"),)),
    "a1.h2": Head("(empty)", (("pos_before", "pos", 6.0),), (("out", "out"),)),
    "a1.h3": Head("(silent)", (("token", "token", 6.0),), (("token", ""),)),
}
IOI_PARTS = {"name": CODE, "is_name": 1, "start": 1, "pos": CODE, "word": 8}  # written by the embeddings
IOI_PARTS |= {"dup": CODE, "is_dup": 1, "inhibit": CODE, "out": CODE, "junk": CODE}  # written by heads
IOI_HEADS = {
    "a0.h0": Head("(unread)", (("pos", "pos", 6.0),), (("word", "junk"),)),
    # Same name 15 * 16 / 6 = 40, same position -24, the start 25; so in the worst case 34 for an earlier occurrence,
    # 25 for the start, 16 for itself and for anything else.
    "a0.h1": Head(
        "duplicate_token",
        (("name", "name", 15.0), ("pos", "pos", -9.0), ("", "start", 150.0)),
        (("name", "dup"), ("is_name", "is_dup")),
    ),
    "a0.h2": Head("(zero)"),
    "a0.h3": Head("(silent)", (("word", "word", 6.0),), (("name", ""),)),
    "a1.h0": Head("(empty)", (("", "is_name", 72.0),), (("out", "inhibit"),)),
    "a1.h1": Head("(unread)", (("", "is_dup", 72.0),), (("dup", "junk"),)),
    "a1.h2": Head("(zero)"),
    "a1.h3": Head("s_inhibition", (("", "is_dup", 72.0),), (("dup", "inhibit"),)),
    "a2.h0": Head("(unread)", (("", "is_name", 78.0),), (("name", "junk"),)),
    "a2.h1": Head("(crossed)", (("", "is_name", 78.0),), (("name", ""), ("", "out"))),
    # A name 78 / 6 = 13, the inhibited name -5.25 * 16 / 6 = -14.
    "a2.h2": Head("name_mover", (("inhibit", "name", -5.25), ("", "is_name", 78.0)), (("name", "out"),)),
    "a2.h3": Head("(zero)"),
}
INDUCTION_EDGES = {
    "edges": "embed>a0.h2.v embed>a1.h1.q a0.h2>a1.h1.k embed>a1.h1.v a1.h1>logits",
    "edges_position_only": "embed>a0.h2.q embed>a0.h2.k",
    "visible_answer": "embed>a1.h1.v a1.h1>logits",
}
IOI_EDGES = {
    "edges": "embed>a0.h1.q embed>a0.h1.k embed>a0.h1.v a0.h1>a1.h3.k a0.h1>a1.h3.v a1.h3>a2.h2.q embed>a2.h2.k"
    " embed>a2.h2.v a2.h2>logits",
    "edges_position_only": "",
    "visible_swap": "embed>a0.h1.q a0.h1>a1.h3.v a1.h3>a2.h2.q embed>a2.h2.k a2.h2>logits",
    "visible_abc": "embed>a0.h1.q a0.h1>a1.h3.k a0.h1>a1.h3.v a1.h3>a2.h2.q embed>a2.h2.k a2.h2>logits",
}
NOTES = (
    "An edge is in edges if giving its reader, and nobody else, what its source writes on another prompt of equal"
    " length can change the logits. edges_position_only are read too, but carry the position code alone, which is equal"
    " in all prompts. Every other edge is dead: its effect is exactly zero. Constant queries are biases, so they are no"
    " edges. visible_... are the edges that, patched from one kind of corrupted run (answer: mx.tasks.induction; swap,"
    " abc: mx.tasks.ioi), move a logit at the answer position by more than 0.1; the others need other pairs."
)
COMMON = "An attention-only transformer without normalisation, its weights written by hand, its circuit known by edge. "
DESCRIPTIONS = {
    "handmade-induction": "Two layers: a previous-token head and an induction head continue repeated sequences of 61"
    " made-up syllables; the other six heads provably do nothing.",
    "handmade-ioi": "Three layers: a duplicate-token, an S-inhibition and a name-mover head solve indirect object"
    " identification; the other nine heads provably do nothing. No head recognises the end of a prompt: all act at"
    " every position, and a prediction means something only where a recipient is due.",
}


def sign_codes() -> Tensor:
    """64 codes of 16 signs, ``[code, 16]``: two different ones have an inner product of 0, 4 or -4, against 16.

    Four bases of 16 orthogonal codes, each the Walsh basis times a sign pattern ``(-1)^(x.My)``, with M running over
    the four elements of GF(4) as 2 x 2 bit matrices; any two bases are mutually unbiased (a part of Kerdock's code).
    """
    bits = torch.arange(CODE)[:, None] >> torch.arange(4) & 1  # [16, 4]
    walsh = 1 - 2 * (bits @ bits.T % 2)  # [16, 16]
    field = torch.tensor([[[0, 0], [0, 0]], [[1, 0], [0, 1]], [[0, 1], [1, 1]], [[1, 1], [1, 0]]])
    twist = 1 - 2 * (torch.einsum("zi,mij,zj->mz", bits[:, :2], field, bits[:, 2:]) % 2)  # [4, 16]
    return (twist[:, None] * walsh).flatten(0, 1).float()  # [64, 16]


def slices(parts: dict[str, int]) -> dict[str, slice]:
    """The slice of each part in the residual stream."""
    ends = torch.tensor(list(parts.values())).cumsum(0).tolist()
    return {name: slice(end - parts[name], end) for name, end in zip(parts, ends, strict=True)}


def head_weights(parts: dict[str, int], head: Head) -> dict[str, Tensor]:
    """The weights of one head in the layout of TransformerLens: ``[d_model, d_head]``, biases ``[d_head]``."""
    where, d_model = slices(parts), sum(parts.values())
    weights = {f"W_{letter}": torch.zeros(d_model, D_HEAD) for letter in "QKV"}
    weights |= {f"b_{letter}": torch.zeros(D_HEAD) for letter in "QKV"} | {"W_O": torch.zeros(D_HEAD, d_model)}
    at = 0
    for query, key, gain in head.looks:
        columns, at = slice(at, at + parts[key]), at + parts[key]  # the head dimensions of this pair
        if query:
            weights["W_Q"][where[query], columns] = gain * torch.eye(parts[key])
        else:
            weights["b_Q"][columns] = gain
        weights["W_K"][where[key], columns] = torch.eye(parts[key])
    at = 0  # values use separate dimensions
    for source, target in head.copies:
        size = parts[source or target]
        columns, at = slice(at, at + size), at + size
        if source:
            weights["W_V"][where[source], columns] = torch.eye(size)
        if target:  # a short part fills the first dimensions of a longer one
            weights["W_O"][columns, where[target]] = torch.eye(size, parts[target])
    return weights


@dataclass(frozen=True)
class Handmade:
    """A complete model with hand-set weights.

    Attributes:
        tokens: part -> table over the vocabulary, ``[d_vocab, size]``.
        positions: part -> table over positions, ``[N_CTX, size]``.
        readout: table that turns the part ``out`` into logits, ``[d_vocab, CODE]``.
    """

    name: str
    tokenizer: PreTrainedTokenizerFast
    parts: dict[str, int]
    heads: dict[str, Head]
    edges: dict[str, str]
    tokens: dict[str, Tensor]
    positions: dict[str, Tensor]
    readout: Tensor

    def config(self) -> dict[str, object]:
        """The fields of ``HookedTransformerConfig``."""
        sizes = {"n_layers": len(self.heads) // N_HEADS, "n_heads": N_HEADS, "d_head": D_HEAD, "n_ctx": N_CTX}
        sizes |= {"d_model": sum(self.parts.values()), "d_vocab": len(self.tokenizer)}
        kind = {"attn_only": True, "act_fn": None, "normalization_type": None, "init_weights": False}
        return {"model_name": self.name, **sizes, **kind}

    def state(self) -> dict[str, Tensor]:
        """The state dict of a ``HookedTransformer``."""
        d_model, d_vocab, where = sum(self.parts.values()), len(self.tokenizer), slices(self.parts)
        state = {"embed.W_E": torch.zeros(d_vocab, d_model), "pos_embed.W_pos": torch.zeros(N_CTX, d_model)}
        state |= {"unembed.W_U": torch.zeros(d_model, d_vocab), "unembed.b_U": torch.zeros(d_vocab)}
        for weight, tables in (("embed.W_E", self.tokens), ("pos_embed.W_pos", self.positions)):
            for part, table in tables.items():
                state[weight][:, where[part]] = table
        state["unembed.W_U"][where["out"]] = self.readout.T
        for layer in range(len(self.heads) // N_HEADS):
            layer_heads = [head_weights(self.parts, self.heads[f"a{layer}.h{head}"]) for head in range(N_HEADS)]
            for name in layer_heads[0]:
                state[f"blocks.{layer}.attn.{name}"] = torch.stack([weights[name] for weights in layer_heads])
            state[f"blocks.{layer}.attn.b_O"] = torch.zeros(d_model)
        return state

    def truth(self) -> dict[str, object]:
        """The content of ``truth.json``."""

        def listed(text: str) -> list[dict[str, str]]:
            return [dict(zip(("src", "dest"), edge.split(">"), strict=True)) for edge in text.split()]

        inactive = {node: WHY_INACTIVE[head.role] for node, head in self.heads.items() if head.role in WHY_INACTIVE}
        return {
            "kind": "handmade",
            "nodes": [{"node": n, "role": head.role} for n, head in self.heads.items() if n not in inactive],
            **{key: listed(text) for key, text in self.edges.items()},
            "inactive": list(inactive),
            "inactive_because": inactive,
            "notes": NOTES,
        }


def rows(table: Tensor, first: int, total: int) -> Tensor:
    """A table placed in ``total`` rows of zeros, from row ``first`` on."""
    return torch.nn.functional.pad(table, (0, 0, first, total - first - len(table)))


def induction_model() -> Handmade:
    """``a0.h2`` moves token codes by one position, ``a1.h1`` attends to them; the correct logit is 20."""
    tokenizer, codes = word_tokenizer(SYLLABLES), sign_codes()
    words = rows(codes[: len(SYLLABLES)], FIRST, len(tokenizer))  # [d_vocab, 16]
    positions = {"pos": codes, "pos_before": rows(codes[:-1], 1, N_CTX)}
    circuit = INDUCTION_PARTS, INDUCTION_HEADS, INDUCTION_EDGES
    return Handmade("handmade-induction", tokenizer, *circuit, {"token": words}, positions, 1.25 * words)


def ioi_model() -> Handmade:
    """``a0.h1`` duplicate token, ``a1.h3`` S-inhibition, ``a2.h2`` name mover; the logit of the correct name is 20."""
    tokenizer = word_tokenizer([*NAMES, *(word for word in grammar_words() if word not in NAMES)])
    codes, total = sign_codes(), len(tokenizer)
    names, flags = rows(codes[: len(NAMES)], FIRST, total), rows(torch.ones(len(NAMES), 1), FIRST, total)
    words = 1.0 - 2 * (torch.arange(total)[:, None] >> torch.arange(8) & 1)  # [d_vocab, 8]
    # Position 0 has a flag in place of a code: the duplicate-token head attends to it by default.
    positions = {"pos": rows(codes[1:], 1, N_CTX), "start": rows(torch.ones(1, 1), 0, N_CTX)}
    tokens = {"name": names, "is_name": flags, "word": words}
    return Handmade("handmade-ioi", tokenizer, IOI_PARTS, IOI_HEADS, IOI_EDGES, tokens, positions, 1.25 * names)


def margins(logits: Tensor, answers: Tensor) -> Tensor:
    """The logit of the correct token minus the largest other logit, for ``[n, d_vocab]`` and ``[n]``."""
    right = logits.gather(1, answers[:, None])[:, 0]  # [n]
    return right - logits.scatter(1, answers[:, None], -torch.inf).amax(1)


def induction_margins(model: HookedModel, n: int = 100) -> Tensor:
    """Margins at every predictable position of ``n`` repeated sequences of distinct random syllables."""
    draws = torch.rand(n, len(SYLLABLES), generator=torch.Generator().manual_seed(0))
    order = draws.argsort(1)[:, :PERIOD] + FIRST  # [n, PERIOD]
    tokens = torch.cat([torch.full((n, 1), model.tokenizer.bos_token_id), order, order], 1)  # [n, 1 + 2 PERIOD]
    return margins(model.logits(tokens)[:, PERIOD + 1 : -1].flatten(0, 1), tokens[:, PERIOD + 2 :].flatten())


def ioi_margins(model: HookedModel, n: int = 500) -> Tensor:
    """Margins on ``n`` prompts, then on their ``n`` swapped counterparts; both orders, all templates."""
    rng = random.Random(0)
    examples = [ioi(rng) for _ in range(n)]
    prompts = [(example.clean, example.answers[0]) for example in examples] + [
        (example.corrupted, example.wrong[0]) for example in examples
    ]
    tokens, lengths = model.tokens([prompt for prompt, _ in prompts])
    ids = torch.tensor([model.tokenizer.convert_tokens_to_ids(answer.strip()) for _, answer in prompts])
    return margins(model.logits(tokens, lengths=lengths, at=lengths[:, None] - 1)[:, 0], ids)


def publish(handmade: Handmade, measure: Callable[[HookedModel], Tensor]) -> None:
    """Writes the folder of a model, measures the saved model, and records the result in its card."""
    folder = ZOO / handmade.name
    native.save(folder, handmade.config(), {name: value.half() for name, value in handmade.state().items()})
    handmade.tokenizer.save_pretrained(folder)
    (folder / "truth.json").write_text(json.dumps(handmade.truth(), indent=2) + "\n")
    model = load(str(folder), backend="hooked_transformer", device="cpu")
    margin = measure(model)
    metrics = {"accuracy": float((margin > 0).float().mean()), "predictions": len(margin)}
    metrics |= {"logit_margin_min": round(float(margin.min()), 3), "logit_margin_mean": round(float(margin.mean()), 3)}
    card = {
        "name": handmade.name,
        "kind": "handmade",
        "description": COMMON + DESCRIPTIONS[handmade.name],
        "data": None,
        "recipe": "Written by hand and checked by brute force: python -m experiments.handmade_zoo",
        "seed": None,
        "metrics": metrics,
        "weight_hash": model.weight_hash,
        "license": "Apache-2.0",
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(handmade.name, metrics)


if __name__ == "__main__":
    torch.set_num_threads(1)
    publish(induction_model(), induction_margins)
    publish(ioi_model(), ioi_margins)
