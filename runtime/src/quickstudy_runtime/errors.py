"""What is wrong with a bundle or an input, in one sentence; a robot does not move on either."""


class QuickstudyError(Exception):
    """Base of what this package raises; its text is one sentence for the person at the robot."""


class BundleError(QuickstudyError):
    """A bundle or a skill file that is damaged, tampered with, of another version or of another robot."""


class InputError(QuickstudyError):
    """An observation or a demonstration that cannot be used."""


def shown(value: object, most: int = 80) -> str:
    """A value as it can be shown in a sentence: one short line without control characters."""
    text = ascii(value)
    return text if len(text) <= most else f"{text[:most]}..."
