"""Start-up time: seconds until the help text, until the first number of a run, and until its end.

``make bench-start``, or ``python -m benchmarks.start [TIMES]``. Also prints the processor time (of the run and its
browser) and the load of the machine at the start, since other work lengthens wall time alone.
"""

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

COMMAND = [sys.executable, "-m", "mechxai.cli"]
RUN = ["run", "experiment=ioi_patching", "model=zoo/ioi", "tracker=none"]
NUMBER = re.compile(r"^\w+: \w+ (?:-|\N{MINUS SIGN})?\d")  # the line of the strongest cell
HELPS, RUNS = 5, 3


def timed(arguments, folder):
    """Seconds to the first line, to the first number and to the end, and seconds of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    running = subprocess.Popen([*COMMAND, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True)
    first_line = first_number = float("nan")
    for line in running.stdout:
        now = time.perf_counter() - start
        first_line = now if first_line != first_line else first_line
        if first_number != first_number and NUMBER.match(line):
            first_number = now
    if running.wait():
        raise SystemExit(f"{' '.join(arguments)} ended with {running.returncode}")
    end = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return first_line, first_number, end, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    times = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        seconds = [timed(["--help"], folder)[2] for _ in range(HELPS)]
    print(
        f"mechxai --help: {statistics.median(seconds):.2f} s (median of {HELPS}, {min(seconds):.2f}-{max(seconds):.2f})"
    )
    print(f"mechxai {' '.join(RUN)}, each run in an empty folder; seconds")
    print(f"{'load':>6} {'first line':>11} {'first number':>13} {'end':>6} {'processor':>10}")
    for _ in range(times):
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            line, number, end, processor = timed(RUN, folder)
        print(f"{load:6.1f} {line:11.1f} {number:13.1f} {end:6.1f} {processor:10.1f}", flush=True)


if __name__ == "__main__":
    main()
