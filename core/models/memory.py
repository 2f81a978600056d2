"""Room for whole models."""

import psutil
import torch


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be taken on a device."""
    return int(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available)
