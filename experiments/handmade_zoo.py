"""Write the two bundled models whose weights are set by hand: ``python -m experiments.handmade_zoo``.

Both are attention-only and have no normalisation, so what a head reads and writes can be said exactly. The residual
stream is a row of named parts (`SPACES`); a head copies parts of it into its own dimensions and back. Every gain is a
dyadic number, so half precision stores the weights exactly. Needs TransformerLens 3.9 (it records that backend's hash).
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from experiments.zoo_corpus import SPECIALS, grammar_words, word_tokenizer
from mechxai.model import native
from mechxai.model.hooked_model import HookedModel
from mechxai.model.load import load
from mechxai.tasks.grammars import ioi
from mechxai.tasks.words import NAMES

ZOO = Path(__file__).parent.parent / "mechxai" / "model" / "zoo"
CODE = 16  # dimensions of a code
N_CTX = 64
PERIOD = 24  # of the repeated sequences the induction model is measured on
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstv" for vowel in "aeiou"][: N_CTX - len(SPECIALS)]
INDUCTION_SPACE = {"token": CODE, "pos": CODE, "pos_before": CODE, "previous": CODE, "out": CODE, "junk": CODE}
IOI_SPACE = {
    "name": CODE, "is_name": 1, "start": 1, "pos": CODE, "word": 8,  # written by the embeddings
    "dup": CODE, "is_dup": 1, "inhibit": CODE, "out": CODE, "junk": CODE,  # written by heads
}  # fmt: skip
SPACES = {"handmade-induction": INDUCTION_SPACE, "handmade-ioi": IOI_SPACE}


def sign_codes() -> Tensor:
    """64 codes of 16 signs, ``[code, 16]``: two different ones have an inner product of 0, 4 or -4, never 16 or -16.

    Four bases of 16 orthogonal codes, each the Walsh basis times a sign pattern ``(-1)^(x.My)``, with M running over
    the four elements of GF(4) as 2 x 2 bit matrices; any two bases are mutually unbiased (a part of Kerdock's code).
    """
    z = torch.arange(CODE)
    bits = z[:, None] >> torch.arange(4) & 1  # [16, 4]
    walsh = 1 - 2 * (bits @ bits.T % 2)  # [16, 16]
    field = torch.tensor([[[0, 0], [0, 0]], [[1, 0], [0, 1]], [[0, 1], [1, 1]], [[1, 1], [1, 0]]])
    twist = 1 - 2 * (torch.einsum("zi,mij,zj->mz", bits[:, :2], field, bits[:, 2:]) % 2)  # [4, 16]
    return (twist[:, None] * walsh).flatten(0, 1).float()  # [64, 16]


@dataclass
class Handmade:
    """A model under construction: sizes, the parts of its residual stream, its state dict (zeros at first).

    Attributes:
        name: of the folder.
        spaces: part of the residual stream -> how many dimensions.
        d_head: head dimensions; attention scores are divided by its root.
    """

    name: str
    tokenizer: PreTrainedTokenizerFast
    n_layers: int
    d_head: int
    n_heads: int = 4

    def __post_init__(self) -> None:
        self.spaces, start = {}, 0
        for space, size in SPACES[self.name].items():
            self.spaces[space] = slice(start, start + size)
            start += size
        self.config = {
            "model_name": self.name, "n_layers": self.n_layers, "n_heads": self.n_heads, "d_model": start,
            "d_head": self.d_head, "n_ctx": N_CTX, "d_vocab": len(self.tokenizer), "attn_only": True, "act_fn": None,
            "normalization_type": None, "positional_embedding_type": "standard", "init_weights": False,
        }  # fmt: skip
        into, out = (self.n_heads, start, self.d_head), (self.n_heads, self.d_head, start)
        shapes = {"embed.W_E": (len(self.tokenizer), start), "pos_embed.W_pos": (N_CTX, start)}
        for layer in range(self.n_layers):
            shapes |= {f"blocks.{layer}.attn.W_{letter}": into for letter in "QKV"}
            shapes |= {f"blocks.{layer}.attn.b_{letter}": into[::2] for letter in "QKV"}
            shapes |= {f"blocks.{layer}.attn.W_O": out, f"blocks.{layer}.attn.b_O": (start,)}
        shapes |= {"unembed.W_U": (start, len(self.tokenizer)), "unembed.b_U": (len(self.tokenizer),)}
        self.state = {name: torch.zeros(shape) for name, shape in shapes.items()}

    def embed(self, space: str, table: Tensor, first: int = 0) -> None:
        """Puts a table, ``[tokens, size]``, into a part of the token embedding, from token ``first`` on."""
        self.state["embed.W_E"][first : first + len(table), self.spaces[space]] = table

    def position(self, space: str, table: Tensor, first: int = 0) -> None:
        """Puts a table, ``[positions, size]``, into a part of the position embedding."""
        self.state["pos_embed.W_pos"][first : first + len(table), self.spaces[space]] = table

    def unembed(self, space: str, table: Tensor, first: int) -> None:
        """Makes a part of the stream, read with a table ``[tokens, size]``, the logits of tokens from ``first`` on."""
        self.state["unembed.W_U"][self.spaces[space], first : first + len(table)] = table.T

    def read(self, head: str, letter: str, space: str, gain: float = 1.0, *, at: int = 0, size: int = CODE) -> None:
        """Copies a part of the stream (its first ``size`` dimensions) into head dimensions ``at`` on, times ``gain``."""
        weight, part = self._weight(head, letter), torch.arange(self.config["d_model"])[self.spaces[space]][:size]
        weight[part, at + torch.arange(len(part))] = gain

    def ask(self, head: str, value: float, *, at: int = 0) -> None:
        """Sets one head dimension of every query to a constant: what the head looks for wherever it stands."""
        layer, number = _numbers(head)
        self.state[f"blocks.{layer}.attn.b_Q"][number, at] = value

    def write(self, head: str, space: str, *, at: int = 0, size: int = CODE) -> None:
        """Copies head dimensions ``at`` on into a part of the stream."""
        weight, part = self._weight(head, "O"), torch.arange(self.config["d_model"])[self.spaces[space]][:size]
        weight[at + torch.arange(len(part)), part] = 1.0

    def _weight(self, head: str, letter: str) -> Tensor:
        layer, number = _numbers(head)
        return self.state[f"blocks.{layer}.attn.W_{letter}"][number]


def _numbers(head: str) -> tuple[int, int]:
    layer, number = head.removeprefix("a").split(".h")
    return int(layer), int(number)


def induction_model() -> Handmade:
    """Two layers: ``a0.h2`` moves each token's code one position on, ``a1.h1`` looks for its own token among them.

    Attention scores are 16 where codes agree and at most 4 elsewhere; a right token gets logit 20.
    """
    model, codes = Handmade("handmade-induction", word_tokenizer(SYLLABLES), n_layers=2, d_head=16), sign_codes()
    first = len(SPECIALS)
    model.embed("token", codes[: len(SYLLABLES)], first)
    model.position("pos", codes)
    model.position("pos_before", codes[:-1], first=1)
    model.unembed("out", 1.25 * codes[: len(SYLLABLES)], first)

    def attend(head: str, query: str, key: str) -> None:
        model.read(head, "Q", query, gain=4.0)
        model.read(head, "K", key)

    attend("a0.h2", "pos_before", "pos")  # the previous-token head
    model.read("a0.h2", "V", "token")
    model.write("a0.h2", "previous")
    attend("a1.h1", "token", "previous")  # the induction head
    model.read("a1.h1", "V", "token")
    model.write("a1.h1", "out")

    attend("a0.h0", "pos", "pos")  # looks at itself, writes where nobody reads
    model.read("a0.h0", "V", "token")
    model.write("a0.h0", "junk")
    attend("a0.h3", "token", "token")  # looks at equal tokens, reads into dimensions it does not write from
    model.read("a0.h3", "V", "token", size=CODE // 2)
    model.write("a0.h3", "out", at=CODE // 2, size=CODE // 2)
    attend("a1.h0", "token", "previous")  # looks where the induction head looks, writes where nobody reads
    model.read("a1.h0", "V", "token")
    model.write("a1.h0", "junk")
    attend("a1.h2", "pos_before", "pos")  # reads a part of the stream that is still empty
    model.read("a1.h2", "V", "out")
    model.write("a1.h2", "out")
    attend("a1.h3", "token", "token")  # reads, but its W_O is zero
    model.read("a1.h3", "V", "token")
    return model  # a0.h1 stays entirely zero


def ioi_model() -> Handmade:
    """Three layers: ``a0.h1`` duplicate token, ``a1.h3`` S-inhibition, ``a2.h2`` name mover, each at every position.

    Worst-case scores of the duplicate-token head: 34 for an earlier occurrence, 25 for the start, 16 for itself and
    anything else.
    """
    tokenizer = word_tokenizer([*NAMES, *(word for word in grammar_words() if word not in NAMES)])
    model, codes, first = Handmade("handmade-ioi", tokenizer, n_layers=3, d_head=36), sign_codes(), len(SPECIALS)
    model.embed("name", codes, first)
    model.embed("is_name", torch.ones(len(NAMES), 1), first)
    model.embed("word", 1.0 - 2 * (torch.arange(len(tokenizer))[:, None] >> torch.arange(8) & 1))  # [d_vocab, 8]
    model.position("pos", codes[1:], first=1)  # position 0 has no code: it is where heads rest
    model.position("start", torch.ones(1, 1))
    model.unembed("out", 1.25 * codes, first)

    model.read("a0.h1", "Q", "name", gain=15.0)  # same name: 15 * 16 / 6 = 40
    model.read("a0.h1", "K", "name")
    model.read("a0.h1", "Q", "pos", gain=-9.0, at=CODE)  # same position: -9 * 16 / 6 = -24
    model.read("a0.h1", "K", "pos", at=CODE)
    model.ask("a0.h1", 150.0, at=2 * CODE)  # the start: 150 / 6 = 25
    model.read("a0.h1", "K", "start", at=2 * CODE)
    for source, target, at in (("name", "dup", 0), ("is_name", "is_dup", CODE)):
        model.read("a0.h1", "V", source, at=at)
        model.write("a0.h1", target, at=at)
    model.ask("a1.h3", 72.0)  # a duplicate: 72 / 6 = 12
    model.read("a1.h3", "K", "is_dup")
    model.read("a1.h3", "V", "dup")
    model.write("a1.h3", "inhibit")
    model.ask("a2.h2", 78.0, at=CODE)  # a name: 78 / 6 = 13
    model.read("a2.h2", "K", "is_name", at=CODE)
    model.read("a2.h2", "Q", "inhibit", gain=-5.25)  # the inhibited name: -5.25 * 16 / 6 = -14
    model.read("a2.h2", "K", "name")
    model.read("a2.h2", "V", "name")
    model.write("a2.h2", "out")
    _ioi_distractors(model)
    return model


def _ioi_distractors(model: Handmade) -> None:
    """Heads of the IOI model that attend and may write, but reach nothing; a0.h2, a1.h2 and a2.h3 stay entirely zero."""
    model.read("a0.h0", "Q", "pos", gain=6.0)  # looks at itself, writes where nobody reads
    model.read("a0.h0", "K", "pos")
    model.read("a0.h0", "V", "word")
    model.write("a0.h0", "junk", size=8)
    model.read("a0.h3", "Q", "word", gain=6.0)  # looks at equal words, but its W_O is zero
    model.read("a0.h3", "K", "word")
    model.read("a0.h3", "V", "name")
    model.ask("a1.h0", 72.0)  # looks at names, reads a part of the stream that is still empty
    model.read("a1.h0", "K", "is_name")
    model.read("a1.h0", "V", "out")
    model.write("a1.h0", "inhibit")
    model.ask("a1.h1", 72.0)  # looks where the S-inhibition head looks, writes where nobody reads
    model.read("a1.h1", "K", "is_dup")
    model.read("a1.h1", "V", "dup")
    model.write("a1.h1", "junk")
    model.ask("a2.h0", 78.0)  # a name mover that nothing inhibits, and that writes where nobody reads
    model.read("a2.h0", "K", "is_name")
    model.read("a2.h0", "V", "name")
    model.write("a2.h0", "junk")
    model.ask("a2.h1", 78.0)  # the same, reading into dimensions it does not write from
    model.read("a2.h1", "K", "is_name")
    model.read("a2.h1", "V", "name")
    model.write("a2.h1", "out", at=CODE)


_NOTES = (
    "An edge is listed if replacing what its source writes, for this reader alone, by what it writes on another prompt"
    " of equal length can change the logits; the list is exact: every other edge has an effect of exactly zero.{}"
    " Constant queries are biases and so no edges. inactive_because says why an inactive head does nothing."
)
TRUTHS = {
    "handmade-induction": {
        "roles": {"a0.h2": "previous_token", "a1.h1": "induction"},
        "edges": "embed>a0.h2.v embed>a1.h1.q a0.h2>a1.h1.k embed>a1.h1.v a1.h1>logits",
        "edges_position_only": "embed>a0.h2.q embed>a0.h2.k",
        "visible": {"answer": "embed>a1.h1.v a1.h1>logits"},
        "inactive_because": {
            "a0.h0": "writes into a part of the residual stream that nobody reads",
            "a0.h1": "all weights are zero",
            "a0.h3": "W_V and W_O use different head dimensions, so their product is zero",
            "a1.h0": "attends like the induction head, but writes into a part that nobody reads",
            "a1.h2": "reads a part of the residual stream that is still empty in its layer",
            "a1.h3": "W_O is zero",
        },
        "notes": _NOTES.format(
            " The previous-token head's query and key read only the position code, which all prompts share: they are"
            " kept apart under edges_position_only."
        )
        + " visible.answer lists what shows where only the answer's first occurrence is changed (mx.tasks.induction).",
    },
    "handmade-ioi": {
        "roles": {"a0.h1": "duplicate_token", "a1.h3": "s_inhibition", "a2.h2": "name_mover"},
        "edges": "embed>a0.h1.q embed>a0.h1.k embed>a0.h1.v a0.h1>a1.h3.k a0.h1>a1.h3.v a1.h3>a2.h2.q embed>a2.h2.k"
        " embed>a2.h2.v a2.h2>logits",
        "edges_position_only": "",
        "visible": {
            "swap": "embed>a0.h1.q a0.h1>a1.h3.v a1.h3>a2.h2.q a2.h2>logits",
            "abc": "embed>a0.h1.q a0.h1>a1.h3.k a0.h1>a1.h3.v a1.h3>a2.h2.q a2.h2>logits",
        },
        "inactive_because": {
            "a0.h0": "writes into a part of the residual stream that nobody reads",
            "a0.h2": "all weights are zero",
            "a0.h3": "W_O is zero",
            "a1.h0": "reads a part of the residual stream that is still empty in its layer",
            "a1.h1": "attends like the S-inhibition head, but writes into a part that nobody reads",
            "a1.h2": "all weights are zero",
            "a2.h0": "attends to names and copies them, but into a part that nobody reads",
            "a2.h1": "W_V and W_O use different head dimensions, so their product is zero",
            "a2.h3": "all weights are zero",
        },
        "notes": _NOTES.format(" No edge carries positions alone.")
        + " visible lists, for each corruption of mx.tasks.ioi, what changes the logits at END by more than 0.1: prompts"
        " of a pair differ only at S2, so what reads the first two names cannot show there.",
    },
}
DESCRIPTIONS = {
    "handmade-induction": "A two-layer attention-only transformer without normalisation whose weights are written by"
    " hand. One previous-token head and one induction head continue repeated sequences of 61 made-up syllables; the six"
    " other heads provably do nothing. The circuit is known edge by edge (truth.json).",
    "handmade-ioi": "A three-layer attention-only transformer without normalisation whose weights are written by hand."
    " A duplicate-token, an S-inhibition and a name-mover head solve indirect object identification; the nine other"
    " heads provably do nothing. No head recognises the end of the prompt: all act at every position, and what they"
    " predict means something only where a recipient is due. The circuit is known edge by edge (truth.json).",
}


def truth(name: str) -> dict[str, object]:
    """The content of a model's ``truth.json``."""
    facts = TRUTHS[name]

    def edges(text: str) -> list[dict[str, str]]:
        return [dict(zip(("src", "dest"), edge.split(">"), strict=True)) for edge in text.split()]

    return {
        "kind": "handmade",
        "nodes": [{"node": node, "role": role} for node, role in facts["roles"].items()],
        "edges": edges(facts["edges"]),
        "edges_position_only": edges(facts["edges_position_only"]),
        "visible": {corruption: edges(text) for corruption, text in facts["visible"].items()},
        "inactive": list(facts["inactive_because"]),
        "inactive_because": facts["inactive_because"],
        "notes": facts["notes"],
    }


def margins(logits: Tensor, answers: Tensor) -> Tensor:
    """Logit of the right token less that of the best other one, for ``[n, d_vocab]`` and ``[n]``."""
    right = logits.gather(1, answers[:, None])  # [n, 1]
    return (right - logits.scatter(1, answers[:, None], -torch.inf).amax(1, keepdim=True))[:, 0]


def induction_margins(model: HookedModel, n: int = 100) -> Tensor:
    """Margins at every predictable position of ``n`` repeated sequences of distinct random syllables."""
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(n, len(SYLLABLES), generator=generator).argsort(1)[:, :PERIOD] + len(SPECIALS)
    tokens = torch.cat([torch.full((n, 1), model.tokenizer.bos_token_id), order, order], 1)  # [n, 1 + 2 PERIOD]
    logits = model.logits(tokens)[:, PERIOD + 1 : -1]
    return margins(logits.flatten(0, 1), tokens[:, PERIOD + 2 :].flatten())


def ioi_margins(model: HookedModel, n: int = 500) -> Tensor:
    """Margins on ``n`` prompts and then on their ``n`` swapped counterparts, both orders, all templates."""
    rng = random.Random(0)
    examples = [ioi(rng) for _ in range(n)]
    tokens, lengths = model.tokens([example.clean for example in examples] + [example.corrupted for example in examples])
    answers = [*(example.answers[0] for example in examples), *(example.wrong[0] for example in examples)]
    ids = torch.tensor([model.tokenizer.convert_tokens_to_ids(answer.strip()) for answer in answers])
    return margins(model.logits(tokens, lengths=lengths, at=lengths[:, None] - 1)[:, 0], ids)


def publish(made: Handmade, measure: object) -> None:
    """Writes a model's folder, measures what was written and records it in the card."""
    folder = ZOO / made.name
    native.save(folder, made.config, {name: value.half() for name, value in made.state.items()})
    made.tokenizer.save_pretrained(folder)
    (folder / "truth.json").write_text(json.dumps(truth(made.name), indent=2) + "\n")
    model = load(str(folder), backend="hooked_transformer", device="cpu")
    margin = measure(model)
    card = {
        "name": f"zoo/{made.name}",
        "kind": "handmade",
        "description": DESCRIPTIONS[made.name],
        "data": None,
        "recipe": "python -m experiments.handmade_zoo",
        "seed": None,
        "metrics": {
            "accuracy": float((margin > 0).float().mean()),
            "predictions": len(margin),
            "margin_min": round(float(margin.min()), 3),
            "margin_mean": round(float(margin.mean()), 3),
        },
        "weight_hash": model.weight_hash,
        "license": "Apache-2.0",
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(made.name, card["metrics"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    publish(induction_model(), induction_margins)
    publish(ioi_model(), ioi_margins)
