"""``python tools/train.py …`` is ``higherhrnet train …``."""

import sys

from higherhrnet.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
