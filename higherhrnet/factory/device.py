"""Device names → devices."""

from __future__ import annotations

import torch

from ..errors import UserError


def choose_device(name: str = "auto") -> torch.device:
    """A device by name; ``auto`` takes a GPU where there is one.

    Raises:
        UserError: the device is unknown or not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.zeros(1, device=chosen).cpu()  # some devices (meta) hold nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if name.partition(":")[0] not in ("cpu", "cuda", "mps", "xpu"):
            known = "auto, cpu, cuda, cuda:N or mps"
            raise UserError(f"device '{name}' is unknown: it is {known}") from error
        raise UserError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
    return chosen
