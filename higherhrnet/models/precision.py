"""What number formats the hardware multiplies well, and exactly."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch


def best_precision(device: torch.device) -> str:
    """``bf16`` where the hardware multiplies it natively, else ``fp32``."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type != "cpu":
        return "fp32"
    # AVX-512 BF16 or AMX; without them bf16 is emulated and several times slower than fp32.
    # torch has no public question for this.
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    asked = (getattr(torch.cpu, question, None) for question in questions)
    return "bf16" if any(question is not None and question() for question in asked) else "fp32"


def disable_tf32() -> None:
    """From now on fp32 is fp32 in the whole process: NVIDIA GPUs from Ampere on otherwise round
    what convolutions multiply to 10 bits (TF32), which costs the last digits of published AP."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@cache
def _cpu_info() -> dict[str, str]:
    """What Linux tells of the first processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":")[::2] for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, value in pairs}


def processor_name() -> str:
    """The processor's model, with its features."""
    name = _cpu_info().get("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(processor_features()) or 'no known features'})"


def processor_features() -> list[str]:
    """Of the instructions that matter for networks, those that the processor has."""
    flags = set(_cpu_info().get("flags", "").split())
    known = {
        "avx2": "AVX2", "avx512f": "AVX-512", "avx_vnni": "AVX-VNNI", "avx512_vnni": "VNNI",
        "avx512_bf16": "BF16", "amx_bf16": "AMX-BF16", "amx_int8": "AMX-INT8",
    }  # fmt: skip
    return [name for flag, name in known.items() if flag in flags]
