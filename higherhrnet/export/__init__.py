"""Networks → files of other runtimes."""
