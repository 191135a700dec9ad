"""``higherhrnet bench``."""

from __future__ import annotations

import argparse
import sys

from ..factory.device import choose_device
from ..research.bench.commands import BENCHMARKS
from ..research.bench.table import describe_hardware, print_table, write_table


def bench(options: argparse.Namespace) -> int:
    """Run a benchmark, print its table and write it if wanted."""
    device = choose_device(options.device)
    rows = BENCHMARKS[options.what](options, device)
    hardware = describe_hardware(device)
    print_table(f"bench {options.what}", rows, hardware)
    if options.json:
        command = " ".join(["higherhrnet", *sys.argv[1:]])
        write_table(options.json, command, rows, hardware)
        print(f"written to {options.json}")
    return 0
