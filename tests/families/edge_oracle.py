"""The exact effect of patching one edge, computed with hooks on the Hugging Face model alone.

A writer's move is the change of its block's output when the writer's own output comes from the other run and everything
beside it stays: the other branch of the block is pinned, a norm behind the writer responds. The move is then added to
the input of one reader only.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Names:
    """Where a Hugging Face architecture keeps the modules of a block; "" for a module that it lacks."""

    layers: str = "model.layers"
    final: str = "model.norm"
    norm1: str = "input_layernorm"
    norm2: str = "post_attention_layernorm"
    o: str = "self_attn.o_proj"
    mlp_in: str = "mlp"
    mlp_out: str = "mlp"
    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    down: str = "mlp.down_proj"
    fused: Literal["", "stacked", "per head", "grouped", "codegen"] = ""
    """How a projection of queries, keys and values together orders its columns."""


LLAMA = Names()
NAMES = {
    "gemma2": Names(norm2="pre_feedforward_layernorm"),
    "gemma3": Names(norm2="pre_feedforward_layernorm"),
    "olmo2": Names(norm1="", norm2=""),
    "stablelm": LLAMA,
    "opt": Names(
        "model.decoder.layers",
        "model.decoder.final_layer_norm",
        "self_attn_layer_norm",
        "final_layer_norm",
        "self_attn.out_proj",
        "fc1",
        "fc2",
    ),
    "falcon": Names(
        "transformer.h",
        "transformer.ln_f",
        norm2="input_layernorm",
        o="self_attention.dense",
        q="self_attention.query_key_value",
        k="self_attention.query_key_value",
        v="self_attention.query_key_value",
        fused="stacked",
    ),
}


def _find(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = root[int(name)] if name.isdigit() else getattr(root, name)
    return root


@dataclass(frozen=True)
class EdgeOracle:
    """Edges of one pair of prompts.

    Attributes:
        hf: the Hugging Face model.
        names: its modules.
        n_heads: query heads.
        n_kv_heads: key/value heads.
        d_head: size of a head.
        clean: token ids, ``[1, pos]``, of the run that is patched.
        corrupted: token ids of the run that patches come from.
        answer: id of the answer.
        wrong: id of the wrong answer.
    """

    hf: Any
    names: Names
    n_heads: int
    n_kv_heads: int
    d_head: int
    clean: Tensor
    corrupted: Tensor
    answer: int
    wrong: int

    def baseline(self) -> float:
        """The logit difference of the clean run."""
        return self._score(())

    def patched(self, src: str, dest: str) -> float:
        """The logit difference of the clean run with the edge patched."""
        move = self._move(src)
        if dest == "logits":
            final = _find(self.hf, self.names.final)
            return self._score([(final, _on_input(lambda x: x + move))])
        node, _, rest = dest.partition(".")
        layer = self._layer(int(node[1:]))
        if node.startswith("m"):
            module = _find(layer, self.names.mlp_in)
            read = self._read(layer, self.names.norm2, module, move)
            return self._score([(module, _on_input(lambda _: read))])
        head, part = rest.split(".")
        projection = _find(layer, getattr(self.names, part))
        new = projection(self._read(layer, self.names.norm1, projection, move))
        columns = self._columns(part, int(head[1:]))

        def replace_part(output: Tensor) -> Tensor:
            output = output.clone()
            output[..., columns] = new[..., columns]
            return output

        return self._score([(projection, _on_output(replace_part))])

    def _move(self, src: str) -> Tensor:
        """The change of the residual stream by the writer, ``[1, pos, d_model]``."""
        if src == "embed":
            first = self._layer(0)
            return self._input_of(first, self.corrupted) - self._input_of(first, self.clean)
        node, _, head = src.partition(".")
        layer = self._layer(int(node[1:]))
        mlp = _find(layer, self.names.mlp_out)
        if node.startswith("m"):
            theirs = self._output_of(mlp, self.corrupted)
            changed = self._output_of(layer, self.clean, [(mlp, _on_output(lambda x: theirs.reshape(x.shape)))])
        else:
            o = _find(layer, self.names.o)
            theirs, ours = self._input_of(o, self.corrupted), self._output_of(mlp, self.clean)
            columns = slice(int(head[1:]) * self.d_head, (int(head[1:]) + 1) * self.d_head)

            def replace_head(z: Tensor) -> Tensor:
                z = z.clone()
                z[..., columns] = theirs[..., columns]
                return z

            pinned = [(o, _on_input(replace_head)), (mlp, _on_output(lambda x: ours.reshape(x.shape)))]
            changed = self._output_of(layer, self.clean, pinned)
        return changed - self._output_of(layer, self.clean)

    def _read(self, layer: Any, norm: str, module: Any, move: Tensor) -> Tensor:
        """The normalised input of a reader with the move added before the norm."""
        if not norm:
            return self._input_of(module, self.clean) + move
        module = _find(layer, norm)
        read = self._input_of(module, self.clean)
        return module(read + move.view_as(read))

    def _columns(self, part: str, head: int) -> slice:
        """The columns of a head's part in the output of its projection."""
        group = self.n_heads // self.n_kv_heads
        parts = "qkv".index(part)
        first = {
            "": head,
            "stacked": head + (0, self.n_heads, self.n_heads + self.n_kv_heads)[parts],
            "per head": 3 * head + parts,
            "codegen": 3 * head + (0, 2, 1)[parts],  # the projection is cut into as many pieces as there are heads
            "grouped": (
                (head // group) * (group + 2) + head % group if part == "q" else head * (group + 2) + group + parts - 1
            ),
        }[self.names.fused]
        return slice(first * self.d_head, (first + 1) * self.d_head)

    def _layer(self, number: int) -> Any:
        return _find(self.hf, self.names.layers)[number]

    @torch.no_grad()
    def _score(self, hooks: Any) -> float:
        with _attached(hooks):
            logits = self.hf(self.clean).logits[0, -1]
        return float(logits[self.answer] - logits[self.wrong])

    @torch.no_grad()
    def _input_of(self, module: Any, tokens: Tensor) -> Tensor:
        values: list[Tensor] = []
        with _attached([(module, _on_input(lambda x: (values.append(x.clone()), x)[1]))]):
            self.hf(tokens)
        return values[0]

    @torch.no_grad()
    def _output_of(self, module: Any, tokens: Tensor, hooks: Any = ()) -> Tensor:
        values: list[Tensor] = []
        with _attached([*hooks, (module, _on_output(lambda x: (values.append(x.clone()), x)[1]))]):
            self.hf(tokens)
        return values[0]


Hook = tuple[str, Callable[[Tensor], Tensor]]


def _on_input(function: Callable[[Tensor], Tensor]) -> Hook:
    return "input", function


def _on_output(function: Callable[[Tensor], Tensor]) -> Hook:
    return "output", function


@contextmanager
def _attached(hooks: Any) -> Any:
    with ExitStack() as stack:
        for module, (place, function) in hooks:
            handle = (
                module.register_forward_pre_hook(_before(function), with_kwargs=True)
                if place == "input"
                else module.register_forward_hook(_after(function))
            )
            stack.callback(handle.remove)
        yield


def _before(function: Callable[[Tensor], Tensor]) -> Any:
    def hook(_module: Any, inputs: tuple[Any, ...], settings: dict[str, Any]) -> Any:
        if inputs:
            return (function(inputs[0]), *inputs[1:]), settings
        return inputs, {**settings, "hidden_states": function(settings["hidden_states"])}

    return hook


def _after(function: Callable[[Tensor], Tensor]) -> Any:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (function(output[0]), *output[1:])
        return function(output)

    return hook
