"""Peak memory of one sweep in a process of its own; prints one line of JSON. Linux only.

The peak is the high-water mark of resident memory above the process with the model loaded. The first call lays weights
out, checks its level and triggers late imports of libraries; a later call does not, and is counted from its own start.
"""

import ctypes
import gc
import json
from collections.abc import Callable
from pathlib import Path

import mechxai as mx
from benchmarks import peers
from benchmarks.hooked import hooked_transformer
from benchmarks.machine import child, kib, one_thread
from benchmarks.rows import Settings, options, parse_settings
from benchmarks.sweeps import HEADLINE

CONTENDERS = ("auto", "TransformerLens", "start_at_layer")
_CLEAR = Path("/proc/self/clear_refs")


def measured(settings: Settings) -> list[dict[str, object]]:
    """The peak of every sweep and contender, each in its own process."""
    rows = []
    for number, sweep in enumerate(HEADLINE):
        each = {
            name: child("benchmarks.memory", f"--sweep={number}", f"--contender={name}", *settings.arguments())
            for name in CONTENDERS
        }
        rows.append({"sweep": sweep.name, "contenders": each})
    return rows


def main() -> None:
    """Prints the peak of one sweep."""
    parser = options(__doc__ or "")
    parser.add_argument("--sweep", type=int, default=0, help="index of a headline sweep")
    parser.add_argument("--contender", choices=CONTENDERS, default="auto")
    arguments = parser.parse_args()
    settings = parse_settings(arguments)
    one_thread()
    call = _call(settings, HEADLINE[arguments.sweep], arguments.contender)
    (ready, first), (before, later) = _peak(call), _peak(call)
    peaks = {
        "model_mib": ready,
        "first_call_mib": first - ready,
        "kept_mib": before - ready,
        "later_call_mib": later - before,
    }
    print(json.dumps({name: round(size / 1024, 1) for name, size in peaks.items()}))


def _call(settings: Settings, sweep: peers.Sweep, contender: str) -> Callable[[], object]:
    inner, shape = hooked_transformer(settings.shape), settings.shape
    if contender == "auto":
        model, batch = mx.wrap(inner, name=shape.name), peers.as_batch(settings.prompts)
        return lambda: peers.ours(model, batch, sweep)
    if contender == "start_at_layer":  # its first layer needs the most memory
        return lambda: peers.start_at_layer(inner, shape, settings.prompts, sweep=sweep, layers=[0])
    sample = sweep.sample(shape, settings.prompts, 2)
    return lambda: peers.transformer_lens(inner, shape, settings.prompts, sweep=sweep, sample=sample)


def _peak(call: Callable[[], object]) -> tuple[int, int]:
    """KiB resident before a call, and the peak during it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # free memory that the allocator still holds would mask the call
    _CLEAR.write_text("5")
    start = kib("VmRSS")
    call()
    return start, kib("VmHWM")


if __name__ == "__main__":
    main()
