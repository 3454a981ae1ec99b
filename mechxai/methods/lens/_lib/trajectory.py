"""When a token comes out on top."""

import numpy as np
import xarray as xr

from mechxai.core.errors import ConfigError
from mechxai.core.result import Result, variable

_DIMS = ("prompt", "pos")


def first_top1(result: Result, token: str | int) -> xr.Dataset:
    """The first layer at which a token is the most probable, and the first from which it stays so.

    Args:
        result: of a lens.
        token: as text, leading space or not as in ``top_text``, or as id.

    Returns:
        ``first`` and ``stays`` [prompt, pos], layers counted as in the result (``n_layers`` is the model's output);
        NaN where there is no such layer.

    Raises:
        ConfigError: the result is not a lens'.
    """
    name = "top_token" if isinstance(token, int) else "top_text"
    if name not in result.data:
        raise ConfigError(
            "The first layer at which a token is on top was asked",
            got=f"a result of {result.info.method.get('name')}",
            fix="give the result of LogitLens or of a tuned lens",
        )
    tops = result.data[name].isel(k=0).transpose("layer", *_DIMS)
    on_top = tops.values == token  # [layer, prompt, pos]
    layers = np.asarray(result.data["layer"].values, dtype=float)
    ever, at_last = on_top.any(0), on_top[-1]
    first = np.where(ever, layers[on_top.argmax(0)], np.nan)
    # from the last on downwards: how many layers in a row have it on top
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
