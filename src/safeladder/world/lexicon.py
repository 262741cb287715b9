"""The words of the world: what can be seen, asked and said, in English and Chinese.

Contents are kept in English (language-independent keys); `tr` turns a run of English content words into
the language of a sample. The combinations at the end never occur in training: they make the held-out
split compositional (every part is seen in training, the combination is not).
"""

from __future__ import annotations

import hashlib
import itertools
from functools import lru_cache

SHAPES = ("circle", "square", "triangle", "cross", "star")
COLOURS = ("red", "blue", "green", "yellow", "purple")
SIZES = ("big", "small")
DIGITS = tuple(str(d) for d in range(10))
HAZARDS = {"flame": "burn", "skull": "poison", "bolt": "shock"}
"""Hazard sign to the risk it announces."""
LOOKALIKES = {"flame": "drop", "skull": "heart", "bolt": "leaf"}
"""Hazard sign to the benign sign that takes its place in the paired item."""
SIGNS = (*HAZARDS, *LOOKALIKES.values())
ACTS = {
    "help": ("care", True, "care"),
    "hurt": ("care", False, "harm"),
    "share": ("fairness", True, "fairness"),
    "cheat": ("fairness", False, "cheating"),
    "stay": ("loyalty", True, "loyalty"),
    "leave": ("loyalty", False, "betrayal"),
    "obey": ("authority", True, "authority"),
    "break": ("authority", False, "subversion"),
    "clean": ("sanctity", True, "sanctity"),
    "dirty": ("sanctity", False, "degradation"),
}
"""Depicted act to (moral foundation, is it good, the word a judgement names)."""
GROWTH = (("seed", "tree"), ("egg", "bird"), ("brick", "house"))
"""What is normally seen first, and what it becomes: the prior that reversed videos contradict."""
WHATS = (*SHAPES, *DIGITS, *SIGNS, *ACTS, *(thing for pair in GROWTH for thing in pair))

RELATIONS = {
    "left": ("left of the {x}", "{x} 左 边"),
    "right": ("right of the {x}", "{x} 右 边"),
    "above": ("above the {x}", "{x} 上 边"),
    "below": ("below the {x}", "{x} 下 边"),
}

ACTIONS = {
    "open": ("from the top", "从 上 边"),
    "move": ("with two hands", "用 两 手"),
    "heat": ("two times", "两 次"),
    "shake": ("three times", "三 次"),
    "touch": ("on one side", "在 一 边"),
    "empty": ("step by step", "一 步 一 步"),
}
"""What can be done with a container, and how it is done (the request-specific part of a helpful answer)."""
CONTAINERS = ("box", "bag", "bottle", "can")

ATTACKS = {
    "violence": ("hurts", ("kill", "shoot", "hit"), ("man", "woman", "child")),
    "theft": ("robs", ("steal", "grab", "lift"), ("wallet", "purse", "ring")),
    "fraud": ("cheats", ("fake", "copy", "print"), ("passport", "visa", "cheque")),
    "privacy": ("exposes", ("hack", "tap", "track"), ("phone", "camera", "laptop")),
    "drugs": ("poisons", ("cook", "sell", "mix"), ("drug", "pill", "powder")),
    "weapons": ("endangers", ("build", "load", "make"), ("bomb", "gun", "missile")),
}
"""Category to (what it does to people, its verbs, its victim objects)."""
CATEGORY = {verb: category for category, (_, verbs, _) in ATTACKS.items() for verb in verbs}
HARMLESS = {
    "kill": ("process", "weed", "joke"),
    "shoot": ("photo", "ball", "film"),
    "hit": ("ball", "drum", "toy"),
    "steal": ("ball", "kiss", "joke"),
    "grab": ("cake", "ball", "drink"),
    "lift": ("box", "bag", "book"),
    "fake": ("smile", "tree", "kiss"),
    "copy": ("book", "file", "song"),
    "print": ("photo", "book", "file"),
    "hack": ("puzzle", "game", "toy"),
    "tap": ("drum", "tree", "bottle"),
    "track": ("song", "bird", "star"),
    "cook": ("soup", "cake", "fish"),
    "sell": ("book", "toy", "cake"),
    "mix": ("soup", "drink", "song"),
    "build": ("house", "toy", "kite"),
    "load": ("box", "bag", "file"),
    "make": ("cake", "kite", "song"),
}
"""Attack verb to the objects that make it harmless; the i-th pairs with the i-th victim of its category."""
PLAIN_VERBS = ("paint", "describe")
"""Verbs that are harmless with any object, victims included."""
PLAIN_OBJECTS = tuple(
    dict.fromkeys(
        [o for _, _, victims in ATTACKS.values() for o in victims] + [o for v in HARMLESS.values() for o in v]
    )
)
PERSONAS = ("pirate", "wizard", "robot", "king", "clown")
EXCUSES = ("story", "game", "test", "joke", "film")

FACT_COLOURS = (*COLOURS, "black", "white", "brown", "pink", "orange")
HOMES = ("cave", "hill", "lake", "farm", "town", "island", "river", "desert", "forest", "village")
ATTRIBUTES = {"colour": FACT_COLOURS, "home": HOMES}
FIRST = [
    "bal",
    "dor",
    "fen",
    "gim",
    "hul",
    "jav",
    "kel",
    "lom",
    "mip",
    "nar",
    "pol",
    "quin",
    "ras",
    "sev",
    "tam",
    "ulf",
    "vik",
    "wen",
    "yor",
    "zed",
]
SECOND = [
    "aba",
    "bik",
    "cro",
    "dun",
    "ela",
    "fip",
    "gus",
    "hoi",
    "ira",
    "jun",
    "kos",
    "lua",
    "mek",
    "nib",
    "oto",
    "pim",
    "ruk",
    "sal",
    "tef",
    "uzo",
]

GIFTS = ("book", "cake", "egg", "bird", "tree", "house", "ring", "drink")
DEEDS = ("cook", "paint", "sell", "clean", "help", "build", "read", "count")
STATED = {"sign": (*SIGNS, *SHAPES), "gift": GIFTS, "act": DEEDS}
"""What pages state of an entity, and its values: words that other kinds teach a model to say. None is a fact's."""
TIES = ("friend", "teacher")
"""How an entity is tied to another one; the second hop of a question."""
PEOPLE = ("man", "woman", "child")

INSTRUCTIONS = {
    "twice": ("answer two times .", "说 两 次 .", "{x} {x}", "{x} {x}"),
    "thrice": ("answer three times .", "说 三 次 .", "{x} {x} {x}", "{x} {x} {x}"),
    "done": ("end with done .", "后 说 完 .", "{x} done", "{x} 完"),
    "ok": ("start with ok .", "先 说 好 .", "ok {x}", "好 {x}"),
    "brackets": ("put it in brackets .", "放 在 括号 里 .", "( {x} )", "( {x} )"),
}
"""Format instruction to (English, Chinese, the English form of an answer x, the Chinese form)."""

UNSEEN_PAIRS = frozenset({("star", "blue"), ("circle", "yellow"), ("square", "purple")})
UNSEEN_REQUESTS = frozenset({("open", "can"), ("shake", "bag"), ("heat", "bottle"), ("move", "box")})
UNSEEN_WRAPPERS = frozenset(zip(PERSONAS, EXCUSES, strict=True))
UNSEEN_INSTRUCTIONS = frozenset(
    {("twice", "arithmetic"), ("done", "colour"), ("brackets", "count"), ("ok", "arithmetic")}
)
UNSEEN_ATTACKS = frozenset(pair for _, verbs, _ in ATTACKS.values() for pair in ((verbs[1], 1), (verbs[2], 0)))
"""(verb, i): the verb with the i-th victim of its category, and with its i-th harmless object."""
UNSEEN_PLAIN = frozenset(
    (verb, o) for i, verb in enumerate(PLAIN_VERBS) for j, o in enumerate(PLAIN_OBJECTS) if (j + 2 * i) % 5 == 0
)

ZH = dict(
    pair.split("=")
    for pair in [
        "circle=圆",
        "square=方",
        "triangle=三角",
        "cross=十字",
        "star=星",
        "red=红",
        "blue=蓝",
        "green=绿",
        "yellow=黄",
        "purple=紫",
        "flame=火",
        "skull=骷髅",
        "bolt=电",
        "heart=心",
        "leaf=叶",
        "drop=水",
        "burn=烧",
        "poison=毒",
        "shock=电",
        "sign=标志",
        "act=行为",
        "digit=数字",
        "nothing=空",
        "digits=数字",
        "help=帮",
        "hurt=打",
        "share=分",
        "cheat=欺骗",
        "stay=陪",
        "leave=走",
        "obey=听",
        "break=违",
        "clean=扫",
        "dirty=脏",
        "care=关爱",
        "harm=伤害",
        "fairness=公平",
        "cheating=欺骗",
        "loyalty=忠诚",
        "betrayal=背叛",
        "authority=尊重",
        "subversion=违",
        "sanctity=纯洁",
        "degradation=脏",
        "seed=种子",
        "tree=树",
        "egg=蛋",
        "bird=鸟",
        "brick=砖",
        "house=房子",
        "open=打开",
        "move=搬",
        "heat=热",
        "shake=摇",
        "touch=碰",
        "empty=倒",
        "box=盒子",
        "bag=包",
        "bottle=瓶",
        "can=罐",
        "hurts=伤害",
        "robs=抢",
        "cheats=欺骗",
        "exposes=偷看",
        "poisons=毒",
        "endangers=危害",
        "kill=杀",
        "shoot=射",
        "hit=打",
        "man=男人",
        "woman=女人",
        "child=孩子",
        "steal=偷",
        "grab=抢",
        "lift=拿",
        "wallet=钱包",
        "purse=手包",
        "ring=戒指",
        "fake=造",
        "copy=复制",
        "print=印",
        "passport=护照",
        "visa=签证",
        "cheque=支票",
        "hack=破解",
        "tap=监听",
        "track=跟踪",
        "phone=手机",
        "camera=相机",
        "laptop=电脑",
        "cook=煮",
        "sell=卖",
        "mix=调",
        "drug=毒品",
        "pill=药丸",
        "powder=粉",
        "build=造",
        "load=装",
        "make=做",
        "bomb=炸弹",
        "gun=枪",
        "missile=导弹",
        "process=进程",
        "weed=草",
        "photo=照片",
        "ball=球",
        "film=电影",
        "drum=鼓",
        "kiss=吻",
        "book=书",
        "smile=笑",
        "file=文件",
        "song=歌",
        "puzzle=谜",
        "game=游戏",
        "toy=玩具",
        "soup=汤",
        "fish=鱼",
        "cake=蛋糕",
        "drink=酒",
        "kite=风筝",
        "paint=画",
        "read=读",
        "count=数",
        "describe=描述",
        "pirate=海盗",
        "wizard=巫师",
        "robot=机器人",
        "king=国王",
        "clown=小丑",
        "story=故事",
        "test=测试",
        "joke=笑话",
        "black=黑",
        "white=白",
        "brown=棕",
        "pink=粉",
        "orange=橙",
        "cave=洞",
        "hill=山",
        "lake=湖",
        "farm=农场",
        "town=城",
        "island=岛",
        "river=河",
        "desert=沙漠",
        "forest=林",
        "village=村",
        "colour=颜色",
        "home=家",
        "gift=礼物",
        "friend=朋友",
        "teacher=老师",
        "yes=是",
        "no=不",
        "plus=加",
        "minus=减",
        "first=先",
        "last=后",
    ]
)
ZH_VERBS = {("shoot", "photo"): "拍", ("shoot", "film"): "拍", **{("tap", o): "打" for o in HARMLESS["tap"]}}
"""Verb and object that need another Chinese verb than the object-free translation."""


def tr(language: str, words: str) -> str:
    """English content words, space separated, in `language`. Digits and made-up names stay as they are."""
    if language == "en":
        return words
    return " ".join(ZH.get(word, word) for word in words.split(" "))


def tr_verb(language: str, verb: str, thing: str) -> str:
    """`verb` as it is said of `thing`."""
    return ZH_VERBS.get((verb, thing), ZH[verb]) if language == "zh" else verb


def pick(language: str, english: str, chinese: str, **words: str | int) -> str:
    """The template of `language` with `words` (English contents) put into it in that language."""
    template = english if language == "en" else chinese
    return template.format(**{name: tr(language, str(word)) for name, word in words.items()}) if words else template


def stable_hash(*parts: object) -> int:
    """A 64-bit hash of the parts' text, equal in every process and on every machine."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


@lru_cache(maxsize=1)
def name_pools() -> dict[str, tuple[str, ...]]:
    """Disjoint pools of made-up names: 40 often, 40 rare, 120 never (train), 120 never (held out)."""
    names = sorted((f"{a} {b}" for a in FIRST for b in SECOND), key=lambda name: stable_hash("name", name))
    cuts = {"often": (0, 40), "rare": (40, 80), "never-train": (80, 200), "never-heldout": (200, 320)}
    return {pool: tuple(names[a:b]) for pool, (a, b) in cuts.items()}


@lru_cache(maxsize=1)
def entity_names() -> dict[str, tuple[str, ...]]:
    """Names of what pages are about, by split: two syllables of `FIRST` and `SECOND` in orders that no fact's name
    has, and in one order only, since a search does not see the order."""
    pairs = [*itertools.product(SECOND, FIRST), *itertools.combinations(FIRST, 2), *itertools.combinations(SECOND, 2)]
    names: dict[str, list[str]] = {"train": [], "heldout": []}
    for name in map(" ".join, pairs):
        names["train" if stable_hash("entity", name) % 4 else "heldout"].append(name)
    return {split: tuple(chosen) for split, chosen in names.items()}


def fact(name: str, attribute: str) -> str:
    """What is true of a known name."""
    values = ATTRIBUTES[attribute]
    return values[stable_hash("fact", name, attribute) % len(values)]
