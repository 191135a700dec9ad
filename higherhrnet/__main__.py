"""``python -m higherhrnet``, and what the command ``higherhrnet`` starts."""

from __future__ import annotations

import os
import signal
import sys


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
    if status > 128:
        # Threads of libraries may be at work; Python's own way out would trip over them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
