"""Packages that score edges, on the same weights and prompts, each in an environment of its own.

``eap-ig`` (Hanna et al., github.com/hannamw/EAP-IG) and ``auto-circuit`` (Miller et al., on PyPI) need TransformerLens
2. Each runs twice: unmodified, where the backward pass also computes weight gradients, and with weights frozen. eap-ig
requests a CUDA device by name; the benchmark substitutes the CPU. Prints one line of JSON.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import Reference, one_thread, versions
from benchmarks.shapes import GPT2_SMALL, Prompts, Shape, hugging_face, prompts

WIDTH, FIRST, STEPS = 16, 10, 5
Scores = dict[str, float]  # key: "src -> dest" under this package's names


def main() -> None:
    """Measures one package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("scores", help="file for its scores")
    parser.add_argument("--quick", action="store_true", help="a small shape")
    arguments = parser.parse_args()
    one_thread()
    warnings.simplefilter("ignore")
    shape = GPT2_SMALL.quick() if arguments.quick else GPT2_SMALL
    model, pairs = hooked(shape), prompts(shape, WIDTH, FIRST, 1)
    with torch.enable_grad():
        methods = PEERS[arguments.peer](model, pairs)
        runs = {
            f"{name}{', weights frozen' if fixed else ''}": partial(_run, run, model, fixed)
            for fixed in (False, True)
            for name, run in methods.items()
        }
        reference = Reference(shape)
        seconds: dict[str, list[float]] = {name: [] for name in ("reference", *runs)}
        scores: dict[str, Scores] = {}
        for name, run in runs.items():
            scores[name] = run()
        for _ in range(3):
            seconds["reference"].append(reference.run().seconds)
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    Path(arguments.scores).write_text(json.dumps(scores))
    print(json.dumps({"seconds": {name: sorted(times)[1] for name, times in seconds.items()}, "versions": versions()}))


def _run(run: Callable[[], Scores], model: Any, fixed: bool) -> Scores:  # noqa: FBT001
    """A run in which either every weight or a single weight requires a gradient; the packages need at least one."""
    leaf = model.pos_embed.W_pos
    for weight in model.parameters():
        weight.requires_grad_(not fixed).grad = None
    leaf.requires_grad_(requires_grad=True)
    return run()


def hooked(shape: Shape) -> Any:
    """The shared weights in a TransformerLens 2 model, without processing."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig  # noqa: PLC0415 - heavy
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights  # noqa: PLC0415

    config = HookedTransformerConfig(
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        n_ctx=shape.n_ctx,
        d_head=shape.d_head,
        n_heads=shape.n_heads,
        d_mlp=shape.d_mlp,
        d_vocab=shape.d_vocab,
        act_fn="gelu_new",
        normalization_type="LN",
        use_attn_result=True,
        use_split_qkv_input=True,
        use_hook_mlp_in=True,
        device="cpu",
    )
    model = HookedTransformer(config)
    model.load_and_process_state_dict(
        convert_gpt2_weights(hugging_face(shape), config),
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model.eval()


def eap_ig(model: Any, pairs: Prompts) -> dict[str, Callable[[], Scores]]:
    """The package of Hanna et al. Its scores measure the effect of cutting an edge, so their sign is flipped here."""
    from eap import attribute  # noqa: PLC0415 - an extra environment
    from eap.graph import Graph  # noqa: PLC0415

    attribute.torch = _OnTheCpu()
    attribute.tokenize_plus = _as_tokens
    right, wrong = int(pairs.answers), int(pairs.wrong)
    graph = Graph.from_model(model)
    sources = [name for name in graph.nodes if name != "logits"]
    readers = list(graph.get_dst_nodes())
    data = [([pairs.clean[0]], [pairs.corrupted[0]], [0])]

    def metric(logits: Tensor, *_others: Any) -> Tensor:
        return logits[0, -1, right] - logits[0, -1, wrong]

    def run(method: str) -> Scores:
        attribute.attribute(model, graph, data, metric, method, ig_steps=STEPS, quiet=True)
        scores = graph.scores.numpy()
        edges = np.argwhere(graph.real_edge_mask.numpy())
        return {f"{_node(sources[src])} -> {_node(readers[dest])}": -float(scores[src, dest]) for src, dest in edges}

    return {"EAP": lambda: run("EAP"), "EAP-IG, 5 steps": lambda: run("EAP-IG-inputs")}


def auto_circuit(model: Any, pairs: Prompts) -> dict[str, Callable[[], Scores]]:
    """The package of Miller et al.; its integrated gradients follow the edge masks instead of the inputs."""
    from auto_circuit.data import PromptDataLoader, PromptDataset  # noqa: PLC0415 - an extra environment
    from auto_circuit.prune_algos.mask_gradient import mask_gradient_prune_scores  # noqa: PLC0415
    from auto_circuit.utils.graph_utils import patchable_model  # noqa: PLC0415

    data = PromptDataset(pairs.clean, pairs.corrupted, [pairs.answers], [pairs.wrong])
    loader = PromptDataLoader(data, seq_len=None, diverge_idx=0, batch_size=1, shuffle=False)
    patchable = patchable_model(
        model,
        factorized=True,
        slice_output="last_seq",
        seq_len=None,
        separate_qkv=True,
        device=torch.device("cpu"),
    )

    def run(**settings: Any) -> Scores:
        scores = mask_gradient_prune_scores(
            patchable, loader, None, grad_function="logit", answer_function="avg_diff", **settings
        )
        return {
            f"{_node(edge.src.name)} -> {_node(edge.dest.name)}": float(edge.prune_score(scores))
            for edge in patchable.edges
        }

    return {
        "EAP": lambda: run(mask_val=0.0),
        "gradients along masks, 5 points": lambda: run(integrated_grad_samples=STEPS - 1),
    }


PEERS = {"eap-ig": eap_ig, "auto-circuit": auto_circuit}


def _node(name: str) -> str:
    """A node or an input under this package's name."""
    if name in ("input", "Resid Start"):
        return "embed"
    if name == "Resid End":
        return "logits"
    if name.startswith("MLP "):
        return f"m{name[4:]}"
    if name.startswith("A"):
        layer, head, *part = name[1:].split(".")
        return ".".join([f"a{layer}", f"h{head}", *(letter.lower() for letter in part)])
    if "<" in name:
        return name.replace("<", ".").rstrip(">")
    return name


class _OnTheCpu:
    """``torch`` with the CPU in place of a device that is requested by name."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def zeros(self, *sizes: Any, **settings: Any) -> Tensor:
        """Zeros on the CPU."""
        return torch.zeros(*sizes, **{**settings, "device": "cpu"})


def _as_tokens(_model: Any, inputs: list[Tensor], max_length: int | None = None) -> tuple[Tensor, Tensor, Tensor, int]:
    """Prompts that are token ids already."""
    del max_length
    tokens = torch.stack(list(inputs))
    mask = torch.ones_like(tokens)
    return tokens, mask, mask.sum(1), tokens.shape[1]


if __name__ == "__main__":
    sys.exit(main())
