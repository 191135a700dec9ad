"""``python tools/predict.py …`` is ``higherhrnet predict …``."""

import sys

from higherhrnet.cli import main

sys.exit(main(["predict", *sys.argv[1:]]))
