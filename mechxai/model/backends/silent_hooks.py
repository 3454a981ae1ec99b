"""Hook points that a bridge shows but that no forward pass runs through."""

import torch

from mechxai.core.site import Site
from mechxai.core.site_table import SITES
from mechxai.model.backends.attach import attached
from mechxai.model.backends.base import Backend


def silent_hooks(backend: Backend) -> frozenset[str]:
    """The hooks of sites that do not run: nothing could be read there, and an edit would have no effect.

    Sites that need a TransformerLens option are left out. Cost: one forward pass over two tokens.
    """
    layers = range(backend.architecture().n_layers)
    names = [row for row, site in SITES.items() if not site.flag]
    sites = [Site(name, layer) for name in names if SITES[name].has_layer for layer in layers]
    sites += [Site(name) for name in names if not SITES[name].has_layer]
    shown = {site.hook for site in sites if site.hook in backend.hooks}
    ran: set[str] = set()
    hooks = {hook: [lambda _, hook=hook: ran.add(hook)] for hook in shown}
    device = next(iter(backend.inner.parameters())).device
    with torch.no_grad(), attached(backend, (hooks,)):
        backend.run(torch.tensor([[0, 1]], device=device), None)
    return frozenset(shown - ran)
