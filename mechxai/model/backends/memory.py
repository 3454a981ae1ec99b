"""Free memory of a device."""

import os
import pathlib

import torch


def available_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + reusable
    meminfo = "/proc/meminfo"
    if pathlib.Path(meminfo).exists():
        with open(meminfo) as lines:  # noqa: PTH123 - /proc is no ordinary path
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
