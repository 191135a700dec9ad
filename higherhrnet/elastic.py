"""``python -m higherhrnet.elastic``: torch's elastic launcher, with its processes' exit status.

torch's own ends with a traceback of the launcher, whatever the processes ended by.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the launcher; its arguments are those of ``torch.distributed.run``."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(sys.argv[1:])
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        sys.stderr.flush()
        os._exit(status if status > 0 else 128 - status)  # by a signal: as shells say it


if __name__ == "__main__":
    main()
