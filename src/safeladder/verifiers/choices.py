"""Which options of a multiple-choice question a reply chooses; None where it cannot be told.

A letter counts only where the reply states it as its choice: alone, boxed, after "the answer is" and the like, at the
head of the reply, or in brackets. The word "A" in a sentence is an article, not an answer.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

from safeladder.verifiers.maths import boxed

_TAGGED = re.compile(r"<(?:answer|ans)>(.*?)</(?:answer|ans)>", re.IGNORECASE | re.DOTALL)
_AND = r"(?:\s*(?:[,、;/&+]|和|及|与)?\s*(?:\band\b\s*)?)"
_NOT_A_WORD = r"(?![A-Za-z0-9_'’])"
_NO_ARTICLE = r"(?!\s+(?!because\b|since\b|as\b|and\b|or\b|due\b|for\b|which\b|with\b|based\b|given\b)[a-z])"
_SAID = (
    r"(?:(?:final |correct |right |best |my )*(?:answers?|choices?|options?)(?: letters?)?"
    r"(?: (?:is|are|would be|should be|must be|will be)| ?[:：=])+(?: (?:options?|choices?|the letters?))?"
    r"|\b(?:i|we)(?:'d| would)? (?:choose|pick|select|go with)(?: (?:options?|choices?|answer))?"
    r"|答案(?:应该|应当|应)?(?:是|为|选)?[】\])]?\s*[:：]?|选项(?:应该|应当|应)?(?:是|为)\s*[:：]?"
    r"|(?<![不没])选择?\s*[:：]?)"
)
_WRAP = r"[\s*_`\"'“”$({\[【《（]*(?:\\(?:text|mathrm|mathbf|boxed)\{)?[\s(]*"


def letters_for(count: int) -> str:
    """The letters of `count` options, from A on.

    Raises:
        ValueError: not 1..26 options.
    """
    if not 1 <= count <= 26:
        raise ValueError(f"{count} options cannot be lettered")
    return string.ascii_uppercase[:count]


def chosen(reply: str, letters: str, options: Sequence[str] = (), *, several: bool = False) -> str | None:
    """The letters a reply chooses, sorted ("A", "ACD"), or None.

    Args:
        reply: the answer alone, without reasoning.
        letters: the letters on offer, such as "ABCD".
        options: the text of each option, in order; then a reply that repeats one option and no other counts too.
        several: whether more than one letter may be right.

    What is found first decides: the last tagged (``<answer>``) or boxed answer; the whole reply; the last statement of
    a choice; the one letter that heads a line or stands in brackets; one option's text.
    Two choices where one is wanted are None.
    """
    text = unicodedata.normalize("NFKC", reply).strip()
    if not text:
        return None
    tagged = _TAGGED.findall(text)
    box = tagged[-1] if tagged else boxed(text)
    if box is not None:
        inner = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}", r"\1", box)
        return _whole(inner, letters, several) or _by_text(inner, letters, options)
    found = _whole(text, letters, several)
    if found is not None:
        return found
    bracketed = _bracketed(text, letters)
    for candidates in (_stated(text, letters), [*(_headed(text, letters) or bracketed), *bracketed]):
        picked = {_sorted(c) for c in candidates}
        if len(picked) == 1:
            (found,) = picked
            return found if several or len(found) == 1 else None
        if len(picked) > 1:
            return None
    return _by_text(text, letters, options)


def _whole(text: str, letters: str, several: bool) -> str | None:
    """A reply that is nothing but letters: "B", "(b)", "**B.**", "A, C and D"."""
    bare = re.sub(r"[\s*_`\"'“”$.。:：()\[\]{}【】]+", " ", text).strip()
    bare = re.sub(r"^(?:option|choice|answer|选项?|答案)\s*", "", bare, flags=re.IGNORECASE).upper()
    if not re.fullmatch(rf"[{letters}](?:{_AND.replace('and', 'AND')}[{letters}])*", bare):
        return None
    found = "".join(c for c in re.sub(r"\bAND\b", "", bare) if c in letters)
    picked = _sorted(found)
    if len(picked) != len(found):
        return None
    return picked if several or len(picked) == 1 else None


def _stated(text: str, letters: str) -> list[str]:
    """The last statement of a choice of each wording: a reply may weigh one option before it settles on another."""
    one = rf"[{letters}]{_NOT_A_WORD}"
    group = rf"(?:[{letters}]{{2,}}{_NOT_A_WORD}|{one}(?:[)\]]?{_AND}[(\[]?{one})*)(?:(?<=[B-HJ-Z])|{_NO_ARTICLE})"
    patterns = (
        rf"(?i:{_SAID}){_WRAP}({group})",
        rf"(?<![A-Za-z0-9])([{letters}])[)\]*]*(?:\s+is\s+(?i:the\s+)?(?i:correct|right|best|answer)|\s*(?:选项)?(?:是)?正确)",
    )
    found = [matches[-1] for pattern in patterns if (matches := re.findall(pattern, text))]
    return ["".join(c for c in re.sub(r"\band\b", "", group) if c in letters) for group in found]


def _headed(text: str, letters: str) -> list[str]:
    """Letters that head a line: "B. a cat", "(B) a cat", "B：猫"."""
    alone = rf"([{letters}])(?:[).:：、,]|\s*$|\s+[-–—]\s)"
    head = re.compile(rf"^[\s*_`>#-]*(?:[(\[]([{letters}])[)\]]|{alone})", re.MULTILINE)
    return [a or b for a, b in head.findall(text)]


def _bracketed(text: str, letters: str) -> list[str]:
    return re.findall(rf"[(\[]([{letters}])[)\]]", text)


def _by_text(text: str, letters: str, options: Sequence[str]) -> str | None:
    """The one option whose text the reply is, or holds as whole words; an option inside a longer one does not count."""
    folded = _fold(text)
    wanted = [_fold(option) for option in options]
    same = [i for i, option in enumerate(wanted) if option and option == folded]
    if not same:
        held = [i for i, option in enumerate(wanted) if option and _holds(folded, option)]
        same = [i for i in held if not any(i != j and _holds(wanted[j], wanted[i]) for j in held)]
        if len(same) == 1 and re.search(r"\b(?:not|no|never|neither|n't)\b|不|没", folded):
            return None
    return letters[same[0]] if len(same) == 1 else None


def _holds(text: str, part: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(part)}(?![A-Za-z0-9])", text) is not None


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .,;:!?\"'`*。，；：！？")


def _sorted(letters: str) -> str:
    return "".join(sorted(set(letters)))
