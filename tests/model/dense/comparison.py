"""Token batches, the sites of a model, and its cache filled by hooks, for comparison with dense blocks."""

import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ModelSupportError, SiteError
from mechxai.core.site_table import SITES
from mechxai.model.dense import cache as cache_run
from mechxai.model.dense.run import DENSE_SITES

BERT = [("bert", "auto", "raw")]
N_LAYERS = 3


def tokens_of(model, shape=(3, 21), seed=0):
    return torch.randint(10, model.architecture.d_vocab, shape, generator=torch.Generator().manual_seed(seed))


def names_of(model, candidates=DENSE_SITES):
    found = []
    for name in candidates:
        try:
            model.backend.check(mx.Site(name, 0 if SITES[name].has_layer else None))
        except (SiteError, ModelSupportError):
            continue
        found.append(name)
    return found


def hooked(model, *args, **kwargs):
    """The cache filled with hooks, dense blocks or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_run, "_trusted", lambda *_: None)
        return model.cache(*args, **kwargs)


def alike(ours, theirs, atol=2e-5):
    assert list(ours) == list(theirs)
    for site, value in ours.values.items():
        torch.testing.assert_close(value, theirs.values[site], atol=atol, rtol=1e-5, msg=lambda m, s=site: f"{s}: {m}")
