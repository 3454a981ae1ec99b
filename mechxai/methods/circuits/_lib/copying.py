"""Copying scores: how often a head writes in favour of the token it attends to, or against it; for any block."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechxai.core.site import Site
from mechxai.model.hooked_model import HookedModel

_TOP = 5
_SILENT = 1e-4


def copying_scores(
    model: HookedModel, tokens: Int[Tensor, " token"]
) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
    """Share of tokens in the top 5 of each head's output when it attends to the token alone, and of its negation.

    For head h of layer l and token t: ``W_U LN_final(OV_h(LN(x_t)))`` with ``x_t`` the residual stream of t after block
    0 (after the embedding, for layer 0), t standing alone behind the beginning-of-sequence token.

    Args:
        model: the model.
        tokens: ids of the words to copy, say all names of a task.

    Cost: one pass per layer and head over ``2 * n_tokens`` tokens, and two readouts.

    Source: Wang et al. 2022, section 3.3 ("copy score") and appendix F (negative), who read after MLP 0.
    """
    start = model.text.bos if model.text.bos is not None else int(tokens[0])
    prompts = torch.stack([torch.full_like(tokens, start), tokens], 1)  # [token, 2]
    streams = model.cache(prompts, ["resid_pre", "resid_post"], layers=[0])
    copying, suppressing = [], []
    for layer in range(model.architecture.n_layers):
        stream = streams["resid_pre", 0] if layer == 0 else streams["resid_post", 0]
        outputs = _head_outputs(model, prompts, layer, stream=stream)  # [token, head, d_model]
        for scores, sign in ((copying, 1), (suppressing, -1)):
            shares = [_share_in_top(model, prompts, tokens, written=sign * output) for output in outputs.unbind(1)]
            scores.append(torch.stack(shares))
    return torch.stack(copying), torch.stack(suppressing)


def _head_outputs(
    model: HookedModel, prompts: Tensor, layer: int, *, stream: Tensor
) -> Float[Tensor, "token head d_model"]:
    """The output of each head that attends to the last token alone, given the residual stream before its block.

    The difference between the attention output with only this head's ``z`` and the one without any.
    """
    n_heads, n_tokens = model.architecture.n_heads, len(prompts)
    last_outputs: list[Tensor] = []

    def attend_to_last(pattern: Tensor) -> Tensor:
        to_last = torch.zeros_like(pattern)
        to_last[..., -1] = 1.0
        return to_last

    def one_head_each(z: Tensor) -> Tensor:  # [(head + none) token, pos, head, d_head]
        only = torch.eye(n_heads + 1, n_heads, device=z.device, dtype=z.dtype)
        return z * only.repeat_interleave(n_tokens, 0)[:, None, :, None]

    def save_last(attn_out: Tensor) -> None:
        last_outputs.append(attn_out[:, -1].detach().clone())

    hooks = {
        Site("resid_pre", layer).hook: [lambda _: stream.repeat(n_heads + 1, 1, 1)],
        Site("pattern", layer).hook: [attend_to_last],
        Site("z", layer).hook: [one_head_each],
        Site("attn_out", layer).hook: [save_last],
    }
    rows = prompts.repeat(n_heads + 1, 1)
    with torch.no_grad():
        model.forward(rows, hooks=hooks, at=torch.ones(len(rows), 1, dtype=torch.long, device=rows.device))
    outputs = last_outputs[0].unflatten(0, (n_heads + 1, n_tokens))  # [head + none, token, d_model]
    return (outputs[:-1] - outputs[-1]).transpose(0, 1)


def _share_in_top(model: HookedModel, prompts: Tensor, tokens: Tensor, *, written: Tensor) -> Tensor:
    """Share of rows whose token is in the top 5 of the unembedded vector."""
    final = Site("resid_post", model.architecture.n_layers - 1).hook
    first_pos = torch.zeros(len(prompts), 1, dtype=torch.long, device=prompts.device)
    with torch.no_grad():
        logits = model.forward(
            prompts, hooks={final: [lambda residual: written[:, None].expand_as(residual).clone()]}, at=first_pos
        )[:, 0]
    silent = written.norm(dim=-1) < _SILENT  # a head that writes nothing copies nothing
    top = logits.topk(_TOP, -1).indices
    in_top = (top == tokens[:, None].to(top)).any(-1) & ~silent
    return in_top.double().mean()
