"""Peak memory of one sweep in a process of its own, ends with a line of JSON. Linux only.

The peak is the process's resident high-water mark above what it held when the model was ready. The first call lays
weights out, checks its level and loads what libraries load late; a later call does not, and is counted from before it.
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
from benchmarks.rows import Settings, options, settings
from benchmarks.sweeps import HEADLINE

CONTENDERS = ("auto", "TransformerLens", "start_at_layer")
_CLEAR = Path("/proc/self/clear_refs")


def measured(asked: Settings) -> list[dict[str, object]]:
    """All sweeps, a process each."""
    found = []
    for number, sweep in enumerate(HEADLINE):
        each = {
            name: child("benchmarks.memory", f"--sweep={number}", f"--contender={name}", *asked.arguments())
            for name in CONTENDERS
        }
        found.append({"sweep": sweep.name, "contenders": each})
    return found


def main() -> None:
    """Prints one sweep's peak."""
    parser = options(__doc__ or "")
    parser.add_argument("--sweep", type=int, default=0, help="number of the headline's sweep")
    parser.add_argument("--contender", choices=CONTENDERS, default="auto")
    given = parser.parse_args()
    asked = settings(given)
    one_thread()
    call = _call(asked, HEADLINE[given.sweep], given.contender)
    (ready, first), (before, later) = _peak(call), _peak(call)
    found = {
        "model_mib": ready,
        "first_call_mib": first - ready,
        "kept_mib": before - ready,
        "later_call_mib": later - before,
    }
    print(json.dumps({name: round(kib / 1024, 1) for name, kib in found.items()}))


def _call(asked: Settings, sweep: peers.Sweep, contender: str) -> Callable[[], object]:
    inner, shape = hooked_transformer(asked.shape), asked.shape
    if contender == "auto":
        model, batch = mx.wrap(inner, name=shape.name), peers.as_batch(asked.prompts)
        return lambda: peers.ours(model, batch, sweep)
    if contender == "start_at_layer":  # its first layers are its largest
        return lambda: peers.start_at_layer(inner, shape, asked.prompts, sweep=sweep, layers=[0])
    sample = sweep.sample(shape, asked.prompts, 2)
    return lambda: peers.transformer_lens(inner, shape, asked.prompts, sweep=sweep, sample=sample)


def _peak(call: Callable[[], object]) -> tuple[int, int]:
    """KiB resident before, and at most, during a call."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free but still held would hide what the call needs
    _CLEAR.write_text("5")
    start = kib("VmRSS")
    call()
    return start, kib("VmHWM")


if __name__ == "__main__":
    main()
