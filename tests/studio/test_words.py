"""Both languages say the same things, with the same values in them."""

import re
import string
from pathlib import Path

import pytest

import quickstudy.studio
from quickstudy.errors import QuickstudyError
from quickstudy.studio import words


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("key", words._WORDS)
def test_both_languages_have_the_same_values(key: str) -> None:
    english, chinese = words._WORDS[key]
    assert english
    assert chinese
    assert fields(english) == fields(chinese)


def test_every_sentence_that_the_studio_asks_for_is_there() -> None:
    asked = set()
    for path in Path(quickstudy.studio.__file__).parent.glob("*.py"):
        asked |= set(re.findall(r"\bsay\(\s*\"(\w+)\"", path.read_text(encoding="utf-8")))
    assert len(asked) > 40
    assert asked <= words._WORDS.keys()


def test_an_unknown_sentence_or_language_is_said() -> None:
    with pytest.raises(QuickstudyError, match="Unknown sentence"):
        words.say("en", "nonsense")
    with pytest.raises(QuickstudyError, match="en and zh"):
        words.language_of("fr")
