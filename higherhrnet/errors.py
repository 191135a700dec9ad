"""The two kinds of errors: what a user brought, and everything else.

:class:`UserError` is raised where outside data is read (files, config keys, arguments). It alone
becomes one sentence and exit status 2. Failures of the surroundings while a command runs (a full
disk, a lost process) are a :class:`RunError` or a :class:`WriteError`: one sentence, exit status 1.
Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """Wrong input; the message is one sentence that names the file, key or value."""


class RunError(Exception):
    """A run ended for a reason outside the program, or diverged; the message says what to do."""


class WriteError(OSError):
    """A file could not be written or fetched; the message names it and the reason."""
