"""The sizes and block structure of a transformer, known without its weights."""

from dataclasses import asdict, dataclass

from mechxai.core.errors import SiteError, unknown


@dataclass(frozen=True)
class Architecture:
    """Sizes and block structure of a transformer.

    Attributes:
        family: the architecture's name in the checkpoint (``GPT2LMHeadModel``, ``custom``).
        n_kv_heads: key/value heads; smaller than ``n_heads`` under grouped-query attention.
        parallel: attention and MLP read the same residual stream (GPT-J, NeoX); there is no ``resid_mid``.
        causal: position p never sees positions > p.
        attn_only: there are no MLPs.
        norm: ``LN``, ``RMS`` or ``none``.
        positions: ``standard``, ``rotary``, ``shortformer``, ``alibi`` or ``none``.
        logit_softcap: the cap applied to the final logits, or 0.
        n_experts: MLPs per block among which a router chooses for each token (mixture of experts), or 0.
    """

    family: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    parallel: bool = False
    causal: bool = True
    attn_only: bool = False
    gated_mlp: bool = False
    norm: str = "LN"
    positions: str = "standard"
    logit_softcap: float = 0.0
    n_experts: int = 0

    def size(self, dim: str) -> int:
        """The length of a named dimension; ``kv_head`` counts key/value heads."""
        sizes = {
            "layer": self.n_layers,
            "head": self.n_heads,
            "kv_head": self.n_kv_heads,
            "d_model": self.d_model,
            "d_head": self.d_head,
            "d_mlp": self.d_mlp,
            "d_vocab": self.d_vocab,
        }
        if dim not in sizes:
            raise SiteError(unknown("dimension", dim, sizes))
        return sizes[dim]

    def as_dict(self) -> dict[str, object]:
        """Plain values, for manifests."""
        return asdict(self)
