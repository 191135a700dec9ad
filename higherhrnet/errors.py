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


_NO_MEMORY = (
    "not enough memory", "can't allocate memory", "cannot allocate memory", "insufficient memory",
    "bad_alloc", "out of memory",
)  # fmt: skip
_NO_THREAD = ("can't start new thread", "resource temporarily unavailable")


def lack_of(error: BaseException) -> str:
    """What the machine lacked: ``memory``, ``threads``, or empty for any other error.

    Python, NumPy, OpenCV, PyTorch's CPU allocator and its devices each have a word of their own.
    """
    text = str(error).lower()
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "memory"
    kind = type(error)
    if isinstance(error, RuntimeError) or f"{kind.__module__}.{kind.__name__}" == "cv2.error":
        if any(words in text for words in _NO_MEMORY):
            return "memory"
        if any(words in text for words in _NO_THREAD):
            return "threads"
    return ""
