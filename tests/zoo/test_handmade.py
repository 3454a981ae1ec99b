"""The handmade models do what their cards say, by the circuit their truth files list, and by nothing else."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

NAMES = ("handmade-induction", "handmade-ioi")
PERIOD = 12


@pytest.fixture(scope="module")
def models():
    from mechxai.model.load import load

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {name: load(f"zoo/{name}", device="cpu") for name in NAMES}
    torch.set_num_threads(threads)


def truth(name):
    from mechxai.model import bundled

    return json.loads((Path(bundled.__file__).parent / "zoo" / name / "truth.json").read_text())


def head_of(name, role):
    (node,) = [entry["node"] for entry in truth(name)["nodes"] if entry["role"] == role]
    layer, head = node.removeprefix("a").split(".h")
    return int(layer), int(head)


def edge_names(edges):
    return {f"{edge['src']}>{edge['dest']}" for edge in edges}


# Prompts --------------------------------------------------------------------------------------------------------------


def repeats(n, seed=0):
    """Tokens of sequences of distinct syllables written twice after the start, ``[n, 1 + 2 PERIOD]``."""
    order = torch.rand(n, 61, generator=torch.Generator().manual_seed(seed)).argsort(1)[:, :PERIOD] + 3
    return torch.cat([torch.full((n, 1), 1), order, order], 1)


def ioi_examples(n, seed=0, **settings):
    from mechxai.tasks.grammars import ioi

    rng = random.Random(seed)
    return [ioi(rng, **settings) for _ in range(n)]


def role_positions(model, examples, role):
    return torch.tensor([model.text.token_at(example.clean, example.spans[role]) for example in examples])


def ids(model, answers):
    return torch.tensor([model.tokenizer.convert_tokens_to_ids(answer.strip()) for answer in answers])


def induction_pairs():
    """Clean and corrupted tokens by corruption."""
    clean, other = repeats(6), repeats(6, seed=1)
    answer = clean[:, :-1].clone()
    answer[:, PERIOD] = other[:, PERIOD]
    return {"answer": (clean[:, :-1], answer), "other": (clean[:, :-1], other[:, :-1])}


def ioi_pairs(model):
    """Clean and corrupted tokens by corruption, all of one length: swap, a third name, another prompt, another template."""
    length, found = 17, {"swap": [], "abc": []}
    for corruption, pairs in found.items():
        for example in ioi_examples(150, corruption=corruption):
            clean, corrupted = model.text.ids(example.clean), model.text.ids(example.corrupted)
            if len(clean) == length and len(pairs) < 8:
                pairs.append((clean, corrupted, example.template))
    groups = {kind: tuple(torch.tensor([pair[i] for pair in pairs]) for i in (0, 1)) for kind, pairs in found.items()}
    clean = groups["swap"][0]
    assert len({template for _, _, template in found["swap"]}) > 3
    return {**groups, "other": (clean, clean.roll(1, 0))}


# A second implementation, from the stored weights ---------------------------------------------------------------------


class Reference:
    """The forward pass in plain torch, where any one edge can carry what its source writes on another prompt."""

    def __init__(self, name):
        from mechxai.model import bundled

        folder = Path(bundled.__file__).parent / "zoo" / name
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}

    @property
    def readers(self):
        """Every input with the sources that could write to it."""
        sources, found = ["embed"], []
        for layer in range(self.config["n_layers"]):
            heads = [f"a{layer}.h{head}" for head in range(self.config["n_heads"])]
            found += [(source, f"{head}.{letter}") for head in heads for letter in "qkv" for source in sources]
            sources += heads
        return found + [(source, "logits") for source in sources]

    def run(self, tokens, edge=None, corrupted=None):
        """Logits, and what each node writes; with ``edge`` fed from the ``corrupted`` run's writings."""
        w = self.weights
        written = {"embed": w["embed.W_E"][tokens] + w["pos_embed.W_pos"][: tokens.shape[1]]}
        hidden = torch.ones(tokens.shape[1], tokens.shape[1]).triu(1).bool()

        def arriving(dest):
            stream = sum(before.values())
            if edge is not None and edge[1] == dest:
                stream = stream + (corrupted[edge[0]] - before[edge[0]])
            return stream

        for layer in range(self.config["n_layers"]):
            before = dict(written)
            for head in range(self.config["n_heads"]):
                node, attn = f"a{layer}.h{head}", f"blocks.{layer}.attn."
                q, k, v = (
                    arriving(f"{node}.{letter}") @ w[f"{attn}W_{letter.upper()}"][head]
                    + w[f"{attn}b_{letter.upper()}"][head]
                    for letter in "qkv"
                )
                scores = (q @ k.mT / self.config["d_head"] ** 0.5).masked_fill(hidden, -torch.inf)
                written[node] = scores.softmax(-1) @ v @ w[f"{attn}W_O"][head]
        before = written
        return arriving("logits") @ w["unembed.W_U"] + w["unembed.b_U"], written

    def effects(self, clean, corrupted):
        """Largest change of any logit, per edge: at the last position, and anywhere."""
        base, _ = self.run(clean)
        _, other = self.run(corrupted)
        found = {}
        for source, dest in self.readers:
            change = (self.run(clean, (source, dest), other)[0] - base).abs()
            found[f"{source}>{dest}"] = (float(change[:, -1].max()), float(change.max()))
        return found
