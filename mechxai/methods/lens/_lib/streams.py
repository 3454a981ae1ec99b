"""The residual streams that lenses read: before every block, and after the last."""

from collections.abc import Sequence

from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.edit import Intervention
from mechxai.core.errors import SiteError
from mechxai.core.site import Site
from mechxai.core.site_table import site_name
from mechxai.engine.contrast import Run
from mechxai.model.hooked_model import HookedModel

READABLE = ("resid_pre", "resid_mid", "attn_out", "mlp_out")


def check_readable(site: str) -> str:
    """The canonical name of a site that lenses can read.

    Raises:
        SiteError: the site's vectors do not live in the residual stream.
    """
    name = site_name(site).name
    if name not in READABLE:
        raise SiteError(f"A lens cannot read {name}: it does not live in the residual stream", allowed=READABLE)
    return name


def streams_of(
    model: HookedModel, batch: ContrastBatch, site: str, *, run: Run, interventions: Sequence[Intervention] = ()
) -> list[Tensor]:
    """The streams by layer, each ``[prompt, pos, d_model]``, and the output of the last block as one more.

    Cost: one forward pass per prompt, without unembedding.
    """
    last = model.architecture.n_layers - 1
    sites = [*(Site(site, layer) for layer in range(last + 1)), Site("resid_post", last)]
    acts = model.cache(
        batch.tokens(run), sites, lengths=batch.lengths, interventions=interventions, layout=batch.layout
    )
    return [acts[site_of_layer] for site_of_layer in sites]
