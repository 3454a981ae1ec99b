"""The layer at which a token becomes the most probable one."""

import numpy as np
import xarray as xr

from mechxai.core.errors import ConfigError
from mechxai.core.result import Result, variable

_DIMS = ("prompt", "pos")


def first_top1(result: Result, token: str | int) -> xr.Dataset:
    """The first layer at which a token is the most probable one, and the first from which it stays so.

    Args:
        result: the result of a lens.
        token: the token as text, with the leading space of ``top_text`` if it has one, or as id.

    Returns:
        ``first`` and ``stays`` [prompt, pos], layers counted as in the result (``n_layers`` is the model's output);
        NaN where no such layer exists.

    Raises:
        ConfigError: the result of another method than a lens.
    """
    name = "top_token" if isinstance(token, int) else "top_text"
    if name not in result.data:
        raise ConfigError(
            f"first_top1 needs the result of a lens, not of {result.info.method.get('name')}",
            fix="Give the result of LogitLens or of a tuned lens",
        )
    tops = result.data[name].isel(k=0).transpose("layer", *_DIMS)
    on_top = tops.values == token  # [layer, prompt, pos]
    layers = np.asarray(result.data["layer"].values, dtype=float)
    ever, at_last = on_top.any(0), on_top[-1]
    first = np.where(ever, layers[on_top.argmax(0)], np.nan)
    # number of consecutive layers with the token on top, counted from the last layer down
    in_a_row = np.cumprod(on_top[::-1], 0).sum(0)
    stays = np.where(at_last, layers[np.minimum(len(layers) - in_a_row, len(layers) - 1)], np.nan)
    coords = {dim: result.data.coords[dim] for dim in _DIMS}
    return xr.Dataset(
        {
            "first": variable(_DIMS, first, "layer", f"first layer at which {token!r} is the most probable token"),
            "stays": variable(_DIMS, stays, "layer", f"first layer from which {token!r} stays the most probable token"),
        },
        coords=coords,
    )
