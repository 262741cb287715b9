"""From text to search terms: words in lower case without accents, Chinese as overlapping character pairs."""

from __future__ import annotations

import re
import unicodedata

# Han, kana and Hangul are written without spaces (or with particles attached): a run of them is no word.
_UNSPACED = re.compile(r"[㐀-䶿一-鿿豈-﫿぀-ヿ가-힯𠀀-𲎯]+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_WORD = re.compile(r"[^\W_]+")
# Accents of Latin and Greek. In other scripts a mark makes another letter.
_ACCENTS = re.compile(r"(?<![\u0400-\u052f])[\u0300-\u036f]")


def words(text: str) -> list[str]:
    """The terms of `text`, in order and with repetitions.

    A run of letters and digits is one term, in lower case and without accents. A run of Chinese (Japanese, Korean)
    characters becomes its overlapping pairs; a single character stands for itself.

    >>> words("The Café at 5, 北京大学")
    ['the', 'cafe', 'at', '5', '北京', '京大', '大学']
    """
    return _WORD.findall(plain(text))


def plain(text: str) -> str:
    """`text` such that its terms are its runs of letters and digits, as they stand.

    >>> plain("Café 北京大学!")
    'cafe  北京 京大 大学 !'
    """
    return text.lower() if text.isascii() else _NOT_ASCII.sub(_plain, text).lower()


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8: half a surrogate pair cannot, and a policy may well write one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(run: re.Match[str]) -> str:
    decomposed = unicodedata.normalize("NFKD", run.group())
    return _UNSPACED.sub(_pairs, unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed)))


def _pairs(run: re.Match[str]) -> str:
    text = run.group()
    return f" {' '.join(text[i : i + 2] for i in range(max(len(text) - 1, 1)))} "


FUNCTION_WORDS = frozenset(
    words(
        "a an and also are as at be been both by did do does first for from had has have he her his how in is it its "
        "many much name named no not of on one or same she than that the their then there these they this those to "
        "was were what when where which who whom whose why with"
    )
)
"""English words that say nothing of what a query is about."""
