"""What is wrong with a bundle or an input, in one sentence; a robot does not move on either."""

_MOST = 300
"""Characters of a sentence, whatever names and paths it quotes."""


class QuickstudyError(Exception):
    """Base of what this package raises; its text is one line for the person at the robot."""

    def __init__(self, sentence: str) -> None:
        line = "".join(letter if letter.isprintable() else "?" for letter in sentence[: _MOST + 1])
        super().__init__(line if len(line) <= _MOST else f"{line[: _MOST - 3]}...")


class BundleError(QuickstudyError):
    """A bundle or a skill file that is damaged, tampered with, of another version or of another robot."""


class InputError(QuickstudyError):
    """An observation or a demonstration that cannot be used."""


def shown(value: object, most: int = 80) -> str:
    """A value as it can be shown in a sentence: one short line without control characters."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, a list within itself
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}..."


def place(path: object) -> str:
    """A path in quotes, of a long one its end."""
    text = str(path)
    return f"'{text if len(text) <= 120 else f'...{text[-117:]}'}'"
