"""``python tools/valid.py …`` is ``higherhrnet valid …``."""

import sys

from higherhrnet.cli import main

sys.exit(main(["valid", *sys.argv[1:]]))
