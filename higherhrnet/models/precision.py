"""What number formats the hardware multiplies well, and exactly."""

from __future__ import annotations

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
