"""The cards of the trained models, measured again from the shipped weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

import mechxai as mx
from mechxai.core.edit import Intervention, MeanAblate
from mechxai.core.metric import LogitDiff
from mechxai.engine.run import run_sweep
from mechxai.engine.sources import mean_source
from mechxai.engine.sweep import Sweep
from mechxai.model.backends.weight_hash import hash_parameters
from mechxai.model.zoo.bundled import zoo_card, zoo_folder, zoo_names

AT_LEAST = {"ioi": 0.95, "greater_than": 0.90, "sva": 0.90, "docstring": 0.90, "facts": 0.90, "induction": 0.90}


CHAINS = [pytest.param(name, marks=pytest.mark.slow) for name in ("cot", "cot-decorative")]  # they write at length


@pytest.fixture(scope="module", params=["ioi", "planted-ioi", "interchange-ioi", "induction", *CHAINS])
def trained(request):
    return mx.load(f"zoo/{request.param}", device="cpu")


def test_the_zoo_is_complete_and_small():
    kinds = [
        "cot",
        "cot-decorative",
        "handmade-induction",
        "handmade-ioi",
        "induction",
        "interchange-ioi",
        "ioi",
        "planted-ioi",
        "sentiment",
    ]
    assert zoo_names() == [f"zoo/{kind}" for kind in kinds]
    total = sum(path.stat().st_size for name in zoo_names() for path in Path(zoo_folder(name)).iterdir())
    assert total <= 12 * 2**20
    for name in zoo_names():
        card = zoo_card(name)
        assert {"name", "kind", "description", "recipe", "seed", "metrics", "weight_hash", "license"} <= set(card)


def test_cards_hold_when_measured_again(trained):
    from experiments.zoo_cards import measure

    name = trained.name.removeprefix("zoo/")
    measured = measure(trained, name)
    for key, value in trained.card["metrics"].items():
        if key.startswith("interchange"):
            continue  # measured below
        assert measured[key] == pytest.approx(value, abs=0.005), f"{name}: the card says {key} {value}"
    for task, least in AT_LEAST.items():
        if task in measured:
            assert measured[task] >= least, f"{name}: {task}"
    assert trained.card["weight_hash"] == trained.weight_hash


def test_the_interchange_model_computes_what_its_algorithm_does():
    """Each variable set to another prompt's value moves the answer as it should; all the rest moves nothing."""
    from experiments.interchange import agreement

    folder = zoo_folder("zoo/interchange-ioi")
    network = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    found = agreement(network, 200, 7, PreTrainedTokenizerFast.from_pretrained(folder))
    assert set(found) == {"unchanged", "repeated_name", "repeated_name_at_end", "answer", "idle"}
    assert min(found.values()) >= 0.97
    card = zoo_card("zoo/interchange-ioi")["metrics"]
    for name, value in found.items():
        assert value == pytest.approx(card[f"interchange_{name}"], abs=0.03)


def test_the_classifiers_card_holds():
    from experiments.train_sentiment import measure

    model = mx.load_classifier("zoo/sentiment", device="cpu")
    assert measure(model) == model.card["metrics"]
    assert min(model.card["metrics"].values()) >= 0.95
    assert model.card["weight_hash"] == model.weight_hash
    assert model.name == "zoo/sentiment"


def test_what_others_say_changes_no_label():
    """The classifier was trained to heed the writer alone; another's adjective moves the score, but turns nothing."""
    model = mx.load_classifier("zoo/sentiment", device="cpu")
    said = "Friends called the music {} , but I found the plot truly {} ."
    for own, label in (("superb", 1), ("awful", 0)):
        for other in ("superb", "awful"):
            tokens, lengths = model.tokens(said.format(other, own))
            assert int(model.logits(tokens, lengths=lengths)[0, 0].argmax()) == label
            tokens, lengths = model.tokens(said.format(other, own).replace("truly", "hardly"))
            assert int(model.logits(tokens, lengths=lengths)[0, 0].argmax()) == 1 - label


def test_folders_are_ordinary_hugging_face_checkpoints(trained):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = zoo_folder(trained.name)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert hash_parameters(plain) == trained.weight_hash
    tokenizer = AutoTokenizer.from_pretrained(folder)
    own = {"zoo/induction": "ban ben bin ban"}
    own |= dict.fromkeys(("zoo/cot", "zoo/cot-decorative"), "Tom has 4 coins. Tom finds 3 more. 4 plus 3 is 7.")
    text = own.get(trained.name, "When Mary and John went to the store, John gave a drink to")
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
    assert tokenizer.unk_token_id not in ids
    with torch.no_grad():
        ours, theirs = trained.logits(ids).log_softmax(-1), plain(ids).logits.log_softmax(-1)
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_induction_heads():
    roles = mx.HeadRoles()(mx.load("zoo/induction"), mx.tasks.induction(mx.load("zoo/induction"), n=32)).data
    assert float(roles["induction"].max()) > 0.8
    assert float(roles["previous_token"].max()) > 0.8
    assert int(roles["previous_token"].argmax(...)["layer"]) == 0
    assert int(roles["induction"].argmax(...)["layer"]) == 1


def test_planted_heads_are_found_by_role():
    model = mx.load("zoo/planted-ioi")
    batch = mx.tasks.ioi(model, n=64, seed=3, split="held_out")
    roles = mx.HeadRoles()(model, batch).data["role"]
    named = {
        f"a{layer}.h{head}": str(roles.values[layer, head])
        for layer, head in np.ndindex(roles.shape)
        if roles.values[layer, head]
    }
    assert named == {node["node"]: node["role"] for node in model.card["truth"]["nodes"]}


def test_planted_truth_is_confirmed_by_ablation():
    """Mean ablation over an ABC set: each step of the circuit is needed, the rest of the heads together are not."""
    model = mx.load("zoo/planted-ioi")
    truth = model.card["truth"]
    assert truth["kind"] == "planted"
    nodes = {node["node"]: node["role"] for node in truth["nodes"]}
    batch = mx.tasks.ioi(model, n=64, seed=5, corruption="abc", split="held_out", template=0, order="abba")
    sites = [mx.Site("z", layer) for layer in range(3)]
    mean = MeanAblate(mean_source(model, batch, run="corrupted", sites=sites, per_position=True))
    heads = {f"a{layer}.h{head}": mx.Site("z", layer, head) for layer in range(3) for head in range(8)}

    def without(names):
        return tuple(Intervention(heads[name], mean) for name in names)

    steps = {role: [name for name, one in nodes.items() if one == role] for role in set(nodes.values())}
    cells = [(), without(set(heads) - set(nodes)), *(without(names) for names in steps.values())]
    values = run_sweep(model, Sweep(batch, "clean", cells, LogitDiff()), mx.Execution()).values.mean(1).numpy()
    base, circuit_alone, *step_lost = values
    assert base > 8
    assert circuit_alone > 0.7 * base, "the planted heads alone do most of it"
    for role, value in zip(steps, step_lost, strict=True):
        assert value < 0.35 * base, f"without its {role} step the model does not know the answer"
    stored = json.loads((zoo_folder("zoo/planted-ioi") / "truth.json").read_text())["ablation"]
    strongest = sorted(stored, key=stored.__getitem__, reverse=True)[:4]
    assert set(strongest) == set(nodes)
