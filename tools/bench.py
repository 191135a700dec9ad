"""``python tools/bench.py …`` is ``higherhrnet bench …``."""

import sys

from higherhrnet.cli import main

sys.exit(main(["bench", *sys.argv[1:]]))
