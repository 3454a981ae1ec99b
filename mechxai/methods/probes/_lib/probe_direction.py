"""A probe's direction, out of a result."""

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
        result: of `LinearProbes`.
        layer: of the probe.
        pos: of the probe, by its label in the result or its number; may be left out where there is one.
        site: likewise.
        klass: of several classes, the one whose logit is meant; of two, always the second.

    Raises:
        ConfigError: a result without linear probes, or one of several not named.
        SiteError: no such probe, or one that had too few labels.
    """
    data = result.data
    if "weight" not in data:
        raise ConfigError("A probe's direction was asked", got=f"a result of {result.info.method.get('name')}")
    weight = data["weight"]
    wanted = {"layer": layer, "site": site, "pos": None if pos is None else str(pos), "klass": klass}
    for dim, value in wanted.items():
        labels = [str(label) for label in data[dim].values]
        if value is None and len(labels) > 1:
            raise ConfigError(f"A probe's direction was asked without {dim}", allowed=labels)
        matches = [at for at, label in enumerate(labels) if value is None or label == str(value)]
        matches = matches or [at for at, label in enumerate(labels) if dim == "pos" and label.split(":")[0] == value]
        if not matches:
            raise SiteError(f"A probe's direction at {dim}={value!r} was asked", allowed=labels)
        weight = weight.isel({dim: matches[0]})
    vector = torch.from_numpy(weight.values).float()
    vector = vector[~vector.isnan()]
    if not len(vector):
        raise SiteError(f"A probe's direction at layer {layer} was asked", got="a probe with too few labels")
    return torch.nn.functional.normalize(vector, dim=0)
