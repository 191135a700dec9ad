"""``python tools/ablate.py …`` is ``higherhrnet ablate …``."""

import sys

from higherhrnet.cli import main

sys.exit(main(["ablate", *sys.argv[1:]]))
