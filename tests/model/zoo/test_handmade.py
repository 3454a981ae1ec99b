"""The handmade models solve their tasks by the circuits of their truth files and by nothing else."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

NAMES = ("handmade-induction", "handmade-ioi")
PERIOD = 12
INACTIVE = [
    *[("handmade-induction", node) for node in ("a0.h0", "a0.h1", "a0.h3", "a1.h0", "a1.h2", "a1.h3")],
    *[("handmade-ioi", node) for node in ("a0.h0", "a0.h2", "a0.h3", "a1.h0", "a1.h1", "a1.h2")],
    *[("handmade-ioi", node) for node in ("a2.h0", "a2.h1", "a2.h3")],
]


@pytest.fixture(scope="module")
def models():
    from mechxai.model.load import load

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {name: load(f"zoo/{name}", device="cpu") for name in NAMES}
    torch.set_num_threads(threads)


def truth(name):
    from mechxai.model.zoo import bundled

    return json.loads((Path(bundled.__file__).parent / name / "truth.json").read_text())


def numbers(node):
    layer, head = node.removeprefix("a").split(".h")
    return int(layer), int(head)


def head_of(name, role):
    (node,) = [entry["node"] for entry in truth(name)["nodes"] if entry["role"] == role]
    return numbers(node)


def pattern(model, tokens, place):
    """What one head attends to, ``[batch, dest_pos, src_pos]``."""
    layer, head = place
    return model.cache(tokens, ["pattern"], layers=[layer])["pattern", layer][:, head]


def prompts(name, model):
    """A few clean prompts as tokens, all of one length."""
    return repeats(4) if name == "handmade-induction" else ioi_pairs(model)["swap"][0]


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
    """Where a role's name stands, ``[batch]``; names are one token, and one token for the start comes first."""
    found = []
    for example in examples:
        spans = model.tokenizer(example.clean, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        found.append(1 + [tuple(span) for span in spans].index(example.spans[role]))
    return torch.tensor(found)


def margins(logits, answers):
    """Logit of the right token less that of the best other one."""
    best_other = logits.scatter(-1, answers[..., None], -torch.inf).amax(-1)
    return logits.gather(-1, answers[..., None])[..., 0] - best_other


def induction_pairs():
    """Clean and corrupted tokens by corruption."""
    clean, other = repeats(6), repeats(6, seed=1)
    answer = clean[:, :-1].clone()
    answer[:, PERIOD] = other[:, PERIOD]
    return {"answer": (clean[:, :-1], answer), "other": (clean[:, :-1], other[:, :-1])}


def ioi_pairs(model):
    """Clean and corrupted tokens by corruption, all of one length: swap, a third name, another prompt."""
    length, found = 17, {"swap": [], "abc": []}
    for corruption, pairs in found.items():
        for example in ioi_examples(150, corruption=corruption):
            (clean, corrupted), _ = model.tokens([example.clean, example.corrupted])
            if len(clean) == length and len(pairs) < 8:
                pairs.append((clean, corrupted, example.template))
    groups = {kind: tuple(torch.stack([pair[i] for pair in pairs]) for i in (0, 1)) for kind, pairs in found.items()}
    clean = groups["swap"][0]
    assert len({template for _, _, template in found["swap"]}) > 3
    return {**groups, "other": (clean, clean.roll(1, 0))}


# A second implementation, from the stored weights ---------------------------------------------------------------------


class Reference:
    """The forward pass in plain torch, where any one edge can carry what its source writes on another prompt."""

    def __init__(self, name):
        from mechxai.model.zoo import bundled

        folder = Path(bundled.__file__).parent / name
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


# Behaviour ------------------------------------------------------------------------------------------------------------


def test_induction_continues_every_repetition(models):
    model, tokens = models["handmade-induction"], repeats(50)
    logits = model.logits(tokens)[:, PERIOD + 1 : -1]
    assert margins(logits, tokens[:, PERIOD + 2 :]).min() > 14


def test_induction_works_on_text(models):
    model = models["handmade-induction"]
    tokens, _ = model.tokens("ba du te mo ba du")
    assert model.tokenizer.convert_ids_to_tokens(tokens[0]) == ["<bos>", "ba", "du", "te", "mo", "ba", "du"]
    assert model.tokenizer.decode([int(model.logits(tokens)[0, -1].argmax())]) == "te"


@pytest.mark.parametrize("order", ["abba", "baba"])
def test_ioi_names_the_recipient(models, order):
    model, examples = models["handmade-ioi"], ioi_examples(250, order=order)
    texts = [(one.clean, one.answers[0]) for one in examples] + [(one.corrupted, one.wrong[0]) for one in examples]
    tokens, lengths = model.tokens([text for text, _ in texts])
    answers = torch.tensor([model.tokenizer.convert_tokens_to_ids(answer.strip()) for _, answer in texts])
    logits = model.logits(tokens, lengths=lengths, at=lengths[:, None] - 1)[:, 0]
    assert margins(logits, answers).min() > 14


def test_ioi_every_template_is_known(models):
    from mechxai.tasks.example import fill
    from mechxai.tasks.grammars import IOI_TEMPLATES

    model = models["handmade-ioi"]
    values = {"A": "Mary", "B": "John", "S2": "John", "PLACE": "store", "OBJECT": "drink", "OBJECT1": "ring"}
    tokens, lengths = model.tokens([fill(template, values)[0] for template in IOI_TEMPLATES])
    assert not (tokens == model.tokenizer.unk_token_id).any()
    logits = model.logits(tokens, lengths=lengths, at=lengths[:, None] - 1)[:, 0]
    mary = torch.full((len(tokens),), model.tokenizer.convert_tokens_to_ids("Mary"))
    assert margins(logits, mary).min() > 14


def test_ioi_without_a_repeated_name_prefers_neither(models):
    model, examples = models["handmade-ioi"], ioi_examples(20, corruption="abc")
    tokens, lengths = model.tokens([example.corrupted for example in examples])
    logits = model.logits(tokens, lengths=lengths, at=lengths[:, None] - 1)[:, 0]
    names = [model.tokenizer.convert_tokens_to_ids([one.answers[0].strip(), one.wrong[0].strip()]) for one in examples]
    pair = logits.gather(1, torch.tensor(names))
    # Crosstalk: each of the three names adds up to a quarter of its logit to another's.
    assert (pair[:, 0] - pair[:, 1]).abs().max() < 5


@pytest.mark.parametrize("name", NAMES)
def test_card_reports_the_accuracy(models, name):
    card = models[name].card
    assert card["kind"] == "handmade"
    assert card["metrics"]["accuracy"] == 1.0
    assert card["metrics"]["logit_margin_min"] > 14
    if models[name].backend.name == "hooked_transformer":
        assert card["weight_hash"] == models[name].weight_hash


# Heads ----------------------------------------------------------------------------------------------------------------


def test_previous_token_head_looks_one_back(models):
    place = head_of("handmade-induction", "previous_token")
    attention = pattern(models["handmade-induction"], repeats(8), place)
    assert attention.diagonal(-1, 1, 2).min() > 0.99


def test_induction_head_looks_after_the_last_occurrence(models):
    place = head_of("handmade-induction", "induction")
    attention = pattern(models["handmade-induction"], repeats(8), place)
    after = attention.diagonal(1 - PERIOD, 1, 2)[:, 2:]  # from the second copy on
    assert after.min() > 0.99


@pytest.mark.parametrize(
    ("role", "dest", "src"),
    [("duplicate_token", "S2", "S1"), ("s_inhibition", "END", "S2"), ("name_mover", "END", "IO")],
)
def test_ioi_heads_look_where_their_role_says(models, role, dest, src):
    model, examples = models["handmade-ioi"], ioi_examples(40)
    tokens, lengths = model.tokens([example.clean for example in examples])
    at = {spot: role_positions(model, examples, spot) for spot in ("IO", "S1", "S2")} | {"END": lengths - 1}
    attention = pattern(model, tokens, head_of("handmade-ioi", role))
    assert attention[torch.arange(len(tokens)), at[dest], at[src]].min() > 0.99


def test_duplicate_token_head_rests_where_nothing_repeats(models):
    model, examples = models["handmade-ioi"], ioi_examples(40, corruption="abc")
    tokens, _ = model.tokens([example.corrupted for example in examples])
    attention = pattern(model, tokens, head_of("handmade-ioi", "duplicate_token"))
    at = [role_positions(model, examples, spot) for spot in ("IO", "S1", "S2")]
    rest = torch.stack([attention[torch.arange(len(tokens)), position, 0] for position in at])
    assert rest.min() > 0.99


@pytest.mark.parametrize(("name", "node"), INACTIVE)
def test_inactive_heads_do_nothing(models, name, node):
    from mechxai.core.edit import Intervention, ZeroAblate
    from mechxai.core.site import Site

    model, (layer, head) = models[name], numbers(node)
    tokens = prompts(name, model)
    ablated = model.logits(tokens, interventions=[Intervention(Site("z", layer, head=head), ZeroAblate())])
    assert torch.equal(ablated, model.logits(tokens))


@pytest.mark.parametrize("name", NAMES)
def test_circuit_heads_are_needed(models, name):
    from mechxai.core.edit import Intervention, ZeroAblate
    from mechxai.core.site import Site

    model = models[name]
    tokens = prompts(name, model)
    for entry in truth(name)["nodes"]:
        layer, head = numbers(entry["node"])
        ablated = model.logits(tokens, interventions=[Intervention(Site("z", layer, head=head), ZeroAblate())])
        assert (ablated - model.logits(tokens))[:, -1].abs().max() > 5


def test_inactive_heads_are_of_every_kind(models):
    """Zero weights; a live output that nobody reads; a live pattern whose output is zero."""
    kinds = set()
    for name in NAMES:
        reference = Reference(name)
        _, written = reference.run(prompts(name, models[name]))
        for node in truth(name)["inactive"]:
            layer, head = numbers(node)
            weights = [reference.weights[f"blocks.{layer}.attn.W_{letter}"][head] for letter in "QKVO"]
            alive = any(weight.any() for weight in weights)
            kinds.add(("live weights" if alive else "zero weights", "writes" if written[node].any() else "silent"))
    assert kinds == {("zero weights", "silent"), ("live weights", "silent"), ("live weights", "writes")}


# Truth ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_reference_equals_the_model(models, name):
    tokens = prompts(name, models[name])
    assert torch.allclose(Reference(name).run(tokens)[0], models[name].logits(tokens), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_truth_names_what_exists(models, name):
    facts, architecture = truth(name), models[name].architecture
    heads = {f"a{layer}.h{head}" for layer in range(architecture.n_layers) for head in range(architecture.n_heads)}
    circuit = {entry["node"] for entry in facts["nodes"]}
    assert circuit | set(facts["inactive"]) == heads
    assert not circuit & set(facts["inactive"])
    assert {(name, node) for node in facts["inactive"]} == {pair for pair in INACTIVE if pair[0] == name}
    listed = edge_names(facts["edges"]) | edge_names(facts["edges_position_only"])
    assert listed <= {f"{source}>{dest}" for source, dest in Reference(name).readers}
    assert not edge_names(facts["edges"]) & edge_names(facts["edges_position_only"])


@pytest.mark.parametrize("name", NAMES)
def test_truth_is_the_set_of_edges_that_matter(models, name):
    """Every single edge patched in several kinds of pairs: those of the truth move the logits, all others not a bit."""
    pairs = induction_pairs() if name == "handmade-induction" else ioi_pairs(models[name])
    facts, reference = truth(name), Reference(name)
    effects = {kind: reference.effects(*pair) for kind, pair in pairs.items()}
    anywhere = {edge: max(found[edge][1] for found in effects.values()) for edge in effects["other"]}
    assert {edge for edge, effect in anywhere.items() if effect > 0} == edge_names(facts["edges"])
    assert min(anywhere[edge] for edge in edge_names(facts["edges"])) > 5
    for kind in effects.keys() - {"other"}:
        seen = {edge for edge, (last, _) in effects[kind].items() if last > 0.1}
        assert seen == edge_names(facts[f"visible_{kind}"]), kind


@pytest.mark.parametrize("name", NAMES)
def test_position_only_edges_are_read(models, name):
    """Taken away altogether (not patched), they change the logits."""
    reference, tokens = Reference(name), prompts(name, models[name])
    base, written = reference.run(tokens)
    nothing = {node: torch.zeros_like(value) for node, value in written.items()}
    for edge in edge_names(truth(name)["edges_position_only"]):
        without, _ = reference.run(tokens, tuple(edge.split(">")), nothing)
        assert (without - base).abs().max() > 1
