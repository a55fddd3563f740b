"""How the name of a class is written here, whoever wrote it: in options, labels and answers."""

import re
import unicodedata
from functools import lru_cache

MOST_KEPT = 1 << 12
"""Names that are kept in their one form: few are written again and again."""
_INTEGRAL = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")

_SPACES = dict.fromkeys([0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " ")
"""Unicode's category Zs without the plain space."""


@lru_cache(MOST_KEPT)
def class_name(text: str) -> str:
    """The one form of a class's name: 3.0 is 3, True is true; Unicode in its form NFC, every kind of space a plain one,
    and none around the name."""
    text = text_form(text).strip()
    if (lower := text.lower()) in ("true", "false"):
        return lower
    found = _INTEGRAL.fullmatch(text)
    return text if not found else "0" if found[1] == "-0" else found[1]


def text_form(text: str) -> str:
    """A text in Unicode's form NFC, with a plain space for every kind of space."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text).translate(_SPACES)
