"""``python -m higherhrnet``, and what the command ``higherhrnet`` starts."""

from __future__ import annotations

import os
import signal
import sys
import traceback


def _is_one_of_many() -> bool:
    """Whether this is one of the processes of torchrun or of a Slurm step.

    Python's own way out is no way out then: torch's communication threads still drop their last
    tensors, and abort when the interpreter is gone ("terminate called without an active
    exception"); NCCL waits for processes that may wait for this one.
    """
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def main() -> None:
    """Run the command line and leave with its status."""
    try:
        from .cli import main as run

        status = run()
    except KeyboardInterrupt:
        print("higherhrnet: interrupted", file=sys.stderr)
        status = 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read our output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + 13  # SIGPIPE, which not every system has
    except Exception:
        if not _is_one_of_many():
            raise
        traceback.print_exc()
        status = 1
    if status > 128 or _is_one_of_many():
        # Interrupted, threads of libraries may be at work; Python would trip over them, too.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
