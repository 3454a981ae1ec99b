"""W&B fails in the middle of things: the run finishes all the same, its result is whole, it says what is missing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mechxai as mx
from tests.tracking.offline_record import own_process
from tests.tracking.stand_in import stand_in

TINY = ["debug=tiny", "tracker=wandb", "model=zoo/handmade-ioi", "task.template=0", "method.site=z"]
COMMAND = [sys.executable, "-m", "mechxai.cli", "run", *TINY, "method.over=[layer,head]"]
FULL = 'mount -t tmpfs -o size="$0" tmpfs full && exec "$@"'  # a disk of so many bytes, for this process alone


def surroundings(folder, **more):
    """A machine that has never seen W&B."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "XDG_"))}
    (folder / "home").mkdir()
    own |= {"HOME": str(folder / "home"), "PYTHONPATH": str(Path.cwd()), "WANDB_ERROR_REPORTING": "false"}
    return {"cwd": folder, "env": own | more, "text": True}


def check_finished(folder, code, said):
    assert code == 0, said
    (path,) = folder.rglob("result.nc")
    assert mx.Result.load(path).data["recovered"].shape == (3, 4)
    assert (path.parent / "manifest.json").is_file()
    assert "done in" in said


def missing(said):
    return [line.partition(" (")[0].removeprefix("tracking: ") for line in said.splitlines() if "tracking: " in line]


def until(found, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.01)
    raise TimeoutError("nothing happened")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found in /proc")
def test_wandb_is_killed_in_the_middle(tmp_path):
    process = subprocess.Popen(COMMAND, **surroundings(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until(lambda: len(list(tmp_path.rglob("staging/*"))) == 2)  # model and prompts are declared, the method runs
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(own_process(process.pid), signal.SIGKILL)
    os.kill(process.pid, signal.SIGCONT)
    said, _ = process.communicate(timeout=120)
    check_finished(tmp_path, process.returncode, said)
    assert "Traceback" not in said
    lost = missing(said)
    assert {"summary", "figure z", "table z/table", "end of the run"} <= set(lost), said
    assert any(what.startswith("artifact activation_patching-z") for what in lost)
    assert "it has written nothing of the record" in said
    assert "wandb sync" not in said  # there is nothing to upload


def on_a_disk_of(size, command, folder):
    (folder / "full").mkdir()
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", FULL, size, *command]
    if subprocess.run([*inside[:7], size, "true"], cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    return subprocess.run(
        inside, **surroundings(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200, check=False
    )


@pytest.mark.slow
def test_there_is_no_disk_for_wandb(tmp_path):
    done = on_a_disk_of("4k", [*COMMAND, "tracker.directory=full"], tmp_path)
    check_finished(tmp_path, done.returncode, done.stdout)
    assert missing(done.stdout) == ["the whole run"]
    assert "No space left on device" in done.stdout


FILLING = """
from pathlib import Path
from mechxai.tracking.tracker import SafeTracker
from mechxai.tracking.wandb import WandbTracker
tracker = SafeTracker(WandbTracker(directory="full"))
tracker.start("run", {})
tracker.metrics({"a": 1.0})
Path("result.nc").write_bytes(bytes(1_000_000))
tracker.artifact(Path("result.nc"), "result", "result")
with open("full/others", "wb", buffering=0) as others:
    try:
        while others.write(bytes(4096)):
            pass
    except OSError:
        pass
for step in range(1000):
    tracker.metrics({"a": step})
tracker.close()
for problem in tracker.problems:
    print("tracking:", problem)
"""


def test_the_disk_of_wandb_fills_up(tmp_path):
    done = on_a_disk_of("256k", [sys.executable, "-c", FILLING], tmp_path)
    assert done.returncode == 0, done.stdout
    assert missing(done.stdout) == ["artifact result", "end of the run"]
    assert done.stdout.count("No space left on device") >= 2


@pytest.mark.slow  # each call that waits for an answer waits 20 s before W&B gives up
def test_the_network_goes_silent_in_the_middle(tmp_path):
    with stand_in() as server:
        around = surroundings(tmp_path, WANDB_BASE_URL=server.url, WANDB_API_KEY="a" * 40)
        short = ["tracker.mode=online", "tracker.finish_timeout=3"]
        process = subprocess.Popen([*COMMAND, *short], **around, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        until(lambda: "UpsertBucket" in server.asked)
        server.silent.set()
        said, _ = process.communicate(timeout=200)
    check_finished(tmp_path, process.returncode, said)
    lost = missing(said)
    assert lost[0].startswith("input model-")
    assert lost[-1] == "end of the run"
    assert sum("not tried, as there was no answer before" in line for line in said.splitlines()) >= 3
    assert "wandb sync" in said


@pytest.mark.slow
def test_the_network_is_silent_from_the_start(tmp_path):
    with stand_in() as server:
        server.silent.set()
        around = surroundings(tmp_path, WANDB_BASE_URL=server.url, WANDB_API_KEY="a" * 40)
        short = ["tracker.mode=online", "tracker.init_timeout=2"]
        done = subprocess.run(
            [*COMMAND, *short], **around, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200, check=False
        )
    check_finished(tmp_path, done.returncode, done.stdout)
    assert missing(done.stdout) == ["the whole run"]
