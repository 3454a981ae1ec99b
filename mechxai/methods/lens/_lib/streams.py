"""The residual streams that lenses read: before every block, and what the model itself reads last."""

from collections.abc import Sequence

from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import SiteError
from mechxai.core.site import Site
from mechxai.core.site_table import site_name
from mechxai.model.hooked_model import HookedModel

READABLE = ("resid_pre", "resid_mid", "attn_out", "mlp_out")


def check_readable(site: str) -> str:
    """The table's name of a site that lenses read.

    Raises:
        SiteError: its vectors are not of the residual stream.
    """
    name = site_name(site).name
    if name not in READABLE:
        raise SiteError(f"A lens on {name} was asked", got="it is not written in the residual stream", allowed=READABLE)
    return name


def streams_of(
    model: HookedModel, batch: ContrastBatch, site: str, *, run: str, interventions: Sequence[Intervention] = ()
) -> list[Tensor]:
    """By layer, ``[prompt, pos, d_model]``; one more than the model has layers, the last being the last block's output.

    Cost: one forward pass per prompt, without unembedding.
    """
    last = model.architecture.n_layers - 1
    sites = [*(Site(site, layer) for layer in range(last + 1)), Site("resid_post", last)]
    acts = model.cache(
        batch.tokens(run), sites, lengths=batch.lengths, interventions=interventions, layout=batch.layout
    )
    return [acts[one] for one in sites]
