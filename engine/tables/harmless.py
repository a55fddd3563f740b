"""Text for cells that a spreadsheet would take for a formula (CSV injection)."""

import re


def harmless(text: str) -> str:
    """The text with ' in front if a spreadsheet would run it. `restored` is the inverse."""
    return f"'{text}" if re.match(r"'*[=+\-@\t\r]", text) else text


def restored(text: str) -> str:
    """What `harmless` was given."""
    return text[1:] if re.match(r"'+[=+\-@\t\r]", text) else text
