"""Reads a W&B offline record back: a LevelDB log whose entries are protobuf messages of wandb's own kind."""

import json
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 32768
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRecord:
    run: object = None
    config: dict = field(default_factory=dict)
    history: list = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    artifacts: dict = field(default_factory=dict)
    exit_code: int | None = None

    def series(self, name):
        return [step[name] for step in self.history if name in step]


def forget_session():
    # also waits until W&B's own process has written all there is: finish() returns a little earlier
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def own_process(of="self"):
    # W&B's own process among those that a process, by default this one, has started
    for thread in Path(f"/proc/{of}/task").iterdir():
        for child in (thread / "children").read_text().split():
            if b"wandb-core" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return None


def offline_folders(root):
    return sorted(root.glob("wandb/offline-run-*"))


def read_offline(folder):
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    record = OfflineRecord()
    for payload in _entries(path.read_bytes()):
        message = wandb_internal_pb2.Record.FromString(payload)
        _take(record, message.WhichOneof("record_type"), message)
    return record


def _entries(raw):
    # the log's payloads, put together again where they were split over blocks
    magic, number, _version = struct.unpack_from("<4sHB", raw)
    assert (magic, number) == (b":W&B", 0xBEE1)
    parts = []
    at = 7
    while at + 7 <= len(raw):
        room = BLOCK - at % BLOCK
        if room < 7:  # too little for a header: the rest of the block is padding
            at += room
            continue
        _checksum, length, kind = struct.unpack_from("<IHB", raw, at)
        at += 7
        if kind not in {WHOLE, FIRST, MIDDLE, LAST}:
            break
        if kind in {WHOLE, FIRST}:
            parts = []
        parts.append(raw[at : at + length])
        at += length
        if kind in {WHOLE, LAST}:
            yield b"".join(parts)


def _take(record, kind, message):
    if kind == "run":
        record.run = message.run
        record.config |= _values(message.run.config.update)
    elif kind == "config":
        record.config |= _values(message.config.update)
    elif kind == "history":
        record.history.append(_values(message.history.item))
    elif kind == "summary":
        record.summary |= _values(message.summary.update)
    elif kind == "artifact":
        record.artifacts[message.artifact.name] = message.artifact
    elif kind == "exit":
        record.exit_code = message.exit.exit_code


def _values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
