"""Which reasoning behaviours a chain of thought shows, and how diverse a set of them is.

The four behaviours are those of "Cognitive Behaviors that Enable Self-Improving Reasoners" (arXiv
2503.01307): verification, backtracking, sub-goals, backward chaining. Tagged by phrases in English and
Chinese.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_PHRASES: Mapping[str, tuple[str, str]] = {
    "verification": (
        r"(?:double[- ]?|re-?)check|check (?:again|that|this|the|whether|my|if)"
        r"|(?:re-?)?verif(?:y|ies|ied|ying)|let(?: me|['’]s| us) (?:check|confirm)|to confirm|make sure"
        r"|sanity check|plug(?:ging)? (?:it|this|that) back",
        r"(?:再|重新|仔细)(?:检查|核对|看)|验证|检查一(?:下|遍)|核实|确认一下",
    ),
    "backtracking": (
        r"wait|hold on|actually,? (?:no|that|this|i)|on second thought|i made (?:a|an) (?:mistake|error)"
        r"|that(?: is|['’]s) (?:not right|wrong|incorrect)|let me (?:reconsider|rethink|start over|try again)"
        r"|another approach",
        r"等等|等一下|不对|我错了|重新(?:考虑|思考|来)|换(?:个|一种)(?:思路|方法)",
    ),
    "sub-goals": (
        r"first(?:ly)?|step (?:\d+|one|two|three)|we (?:then|need to first)|next ?,"
        r"|to (?:do|solve|answer) this|break (?:it|this|that|the \w+) (?:down|into)",
        r"首先|第[一二三四五1-5]步|分(?:成|为)(?:几|两|三|2|3)步|接下来|接着",
    ),
    "backward chaining": (
        r"work(?:ing)? backwards?|(?:start|begin)(?:ing)? (?:from|with) the (?:end|goal|result|answer|target)"
        r"|in order to (?:get|reach|obtain)"
        r"|to (?:get|reach|obtain) [^.,]{1,40},? (?:we|i) (?:need|must|have to)",
        r"倒推|反推|逆推|从(?:结果|目标|答案)(?:出发|开始|倒)|要得到[^，。]{1,20}(?:需要|必须)",
    ),
}
BEHAVIOURS = tuple(_PHRASES)

# A literal space in front, not \b: several times faster, and the text's own spacing is normalised before.
_ENGLISH = {name: re.compile(rf" [\"'(*]?(?:{english})(?!\w)") for name, (english, _) in _PHRASES.items()}
_CHINESE = {name: re.compile(chinese) for name, (_, chinese) in _PHRASES.items()}


def behaviours(reasoning: str) -> tuple[str, ...]:
    """The behaviours that the reasoning shows, in the order of `BEHAVIOURS`."""
    english = " " + " ".join(reasoning.lower().split())
    chinese = "" if reasoning.isascii() else "".join(reasoning.split())
    return tuple(
        name for name in BEHAVIOURS if _ENGLISH[name].search(english) or (chinese and _CHINESE[name].search(chinese))
    )


def diversity(tags: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    """How a set of chains of thought spreads over the behaviours.

    Returns:
        `counts` per behaviour; `patterns`, counts per combination; `entropy_bits` of the combinations (at
        most 4, for 16 combinations in equal shares); `coverage`, the share of chains with at least one
        behaviour.
    """
    patterns = Counter(tags)
    total = sum(patterns.values())
    counts = {name: sum(n for tag, n in patterns.items() if name in tag) for name in BEHAVIOURS}
    entropy = -sum(n / total * math.log2(n / total) for n in patterns.values())
    named = {" + ".join(tag) or "none": n for tag, n in sorted(patterns.items(), key=lambda item: (-item[1], item[0]))}
    return {
        "counts": counts,
        "patterns": named,
        "entropy_bits": entropy + 0.0,
        "coverage": 1.0 - patterns[()] / total if total else 0.0,
    }
