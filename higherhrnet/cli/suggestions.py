"""What was meant by a command or an option that does not exist."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")


class SuggestingParser(argparse.ArgumentParser):
    """A parser that names the nearest choice to a mistyped one."""

    def error(self, message: str) -> NoReturn:
        """See :class:`argparse.ArgumentParser`."""
        if found := _CHOICE.search(message):
            known = re.findall(r"[\w.-]+", found[2])
            message += _did_you_mean(found[1], known)
        super().error(message)


def refuse_options(
    parser: argparse.ArgumentParser, words: Sequence[str], unknown: Sequence[str]
) -> NoReturn:
    """End with the usage of the command whose options these are not."""
    for word in words:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                parser = action.choices[word]
    hints = (_did_you_mean(word.partition("=")[0], _options_of(parser)) for word in unknown)
    hint = next((hint for hint in hints if hint), "")
    parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


def _options_of(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    if word.startswith("-"):
        word = "--" + word.lstrip("-").replace("_", "-")
    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
