"""The direction of a probe, taken from a result."""

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.core.errors import ConfigError, SiteError
from mechxai.core.grid import Position
from mechxai.core.result import Result


def probe_direction(
    result: Result, layer: int, pos: Position | None = None, *, site: str | None = None, klass: str | None = None
) -> Float[Tensor, " d"]:
    """The unit vector along which a probe's log-odds rise fastest, ``[d]``, for `mx.Steer` and `mx.ProjectOut`.

    Args:
        result: a result of `LinearProbes`.
        layer: the probe's layer.
        pos: the probe's position, by its label in the result or its number; optional if the result has one.
        site: the probe's site; optional if the result has one.
        klass: the class whose logit to follow, for more than two classes; for two, always the second.

    Raises:
        ConfigError: a result without linear probes, or an argument missing where the result has several.
        SiteError: a probe that does not exist, or that had too few labels.
    """
    data = result.data
    if "weight" not in data:
        raise ConfigError(
            f"This result of {result.info.method.get('name')} holds no linear probes",
            fix="Give a result of LinearProbes with probe=logistic, ridge or mass_mean",
        )
    weight = data["weight"]
    wanted = {"layer": layer, "site": site, "pos": None if pos is None else str(pos), "klass": klass}
    for dim, value in wanted.items():
        labels = [str(label) for label in data[dim].values]
        if value is None and len(labels) > 1:
            raise ConfigError(f"The result has probes of several values of {dim}", allowed=labels, fix=f"Give {dim}=")
        matches = [at for at, label in enumerate(labels) if value is None or label == str(value)]
        matches = matches or [at for at, label in enumerate(labels) if dim == "pos" and label.split(":")[0] == value]
        if not matches:
            raise SiteError(f"The result has no probe with {dim}={value!r}", allowed=labels)
        weight = weight.isel({dim: matches[0]})
    vector = torch.from_numpy(weight.values).float()
    vector = vector[~vector.isnan()]
    if not len(vector):
        raise SiteError(f"The probe at layer {layer} had too few labels to be fitted")
    return torch.nn.functional.normalize(vector, dim=0)
