r"""Words in a spelled expression: units, multipliers such as "million", and phrases around a number.

A unit means nothing where only one side has one: the problem asked for it. Where both have one, they must agree, with
"inches", "in" and "inch" as one unit and "square" as its second power; units are never converted.
What follows a number is a unit where its last word is a known unit or a plural, and no word can change the number, such as
"thirds", "squared", "more", "to" or "not". Outside `\text{}` only known words are read, and no unit where the gold has
variables, since `5ab` is a product. "million" multiplies. Before a number, only phrases such as "The answer is" are dropped.
Any other word makes an expression unreadable, and it is right only as the same text.
"""

import re

from qthink_core.benchmarks.graders.commands import names
from qthink_core.benchmarks.graders.numbers.vocabulary import SCALES, SMALL, cardinal

# One unit a row, by its first name; other nouns are units that agree only with themselves.
_ROWS = """
cm centimeter centimetre|mm millimeter millimetre|km kilometer kilometre|m meter metre|in inch|ft foot feet|yd yard|mile mi
kg kilogram|g gram|mg milligram|lb pound pounds|oz ounce|ton tonne|l liter litre L|ml milliliter millilitre|gal gallon
s sec second|min minute|hour hr h|day|week|month|year yr|dollar usd buck|cent|euro eur|yen jpy|rupee inr rs|peso|gbp
penny|currency|degree deg|radian rad|percent pct percentage|mph|kph kmh|celsius C|fahrenheit F|newton N|joule J|watt W|volt V
kelvin K|unit|digit|way|coin|person people|child children|man men|woman women|student|boy|girl|card|ball|marble|apple|book
number|value|root|term|factor|divisor|pair|triangle|side|edge|face|vertex vertices|diagonal|line|path|route|arrangement
combination|permutation|outcome|choice|subset|element|tile|square|rectangle|block|cube|page|word|letter|game|team|player|match
vote|chair|seat|ticket|car|bus|trip|lap|step|turn|hand|dice die|point pt|quart|pint|acre|cup|time|sheep|fish|integer|solution
goose geese|mouse mice
"""
_UNITS = {name: row.split()[0] for row in _ROWS.strip().replace("\n", "|").split("|") for name in row.split()}
_COMPOUND = {"mph": "mile / hour", "kph": "km / hour"}
_ALL_UNITS = frozenset(_UNITS.values()) | frozenset(_COMPOUND.values())
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_AFTER = {"squared": 2, "cubed": 3}
MULTIPLIERS = SCALES | {"dozen": 12, "lakh": 10**5, "crore": 10**7}
# Words behind a number that can make it another one.
_CHANGING = re.compile(
    r"half|halves|thirds?|quarters?"
    r"|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|\w*teen|hundred|thousand|\w+ie|\w*illion)ths?"
    r"|tens|\w+ties|\w+teens|\w*hundreds?|thousands?|\w*illions?|dozens?|lakhs?|crores?|gross|score|myriads?"
    r"|couple|doubles?|twice|triples?|plus|minus|times|over|divided|multiplied|squared|cubed|factorial|powers?|roots?|mod"
    r"|modulo|base|choose|inverse|reciprocal|negative|positive|to|through|or|and|between|either|both|about|than|more|less"
    r"|fewer|least|most|not?|non|never|none|neither|nor|except|without|but|if|when|where|unless|is|isn|are|was|wrong"
    r"|incorrect|false|fails|exceeds"
)
_LINKS = names("of in on from at each for per with")
_TRAILING = names("tall long high wide deep old away apart left total each altogether remaining")
_NO_PLURALS = names("is was has this thus us yes does its his less ss as")
_HEDGE = r"\\text\{(?:approximately|approx|about|around|roughly|exactly)\}"

# Words outside `\text{}`.
_BARE = names("and or not am pm to answer approximately approx about exactly the final solution") | SMALL.keys()
_BARE |= {form for name in MULTIPLIERS for form in (name, f"{name}s")}
_BARE_UNITS = {form for name in _UNITS if len(name) > 1 for form in (name, f"{name}s", f"{name}es")}
_BARE_UNITS |= _POWERS.keys() | _POWERS_AFTER.keys() | names("per th")

_WORD = r"\\text\{[^{}]*\}"
_ATOM = rf"{_WORD}(?:\^\{{-?[0-9]\}})?"
_TAIL = re.compile(
    rf"(?:{_ATOM}|\\frac\{{(?:{_ATOM})+\}}\{{(?:{_ATOM}|[hmsg](?:\^\{{[23]\}})?)\}}|\^\\circ(?: ?[CF](?![A-Za-z]))?"
    rf"|/(?=\\text)|(?<=\}})(?:/[hms](?![A-Za-z{{\\])|\\cdot(?=\\text))|\((?:{_ATOM}|/)+\))+$"
)
_PART = re.compile(r"\\text\{([^{}]*)\}|(\^\\circ)|\^\{(-?[0-9])\}|(/|\}\{)|([A-Za-z]+)(?![A-Za-z{])")
_TRAIL = re.compile(rf"(?<=.)[,;]?{_HEDGE}$")
_LEAD = re.compile(
    r"(?:\\text\{(?:the|final|correct|answer|result|solution|value|is|equals|option|choice|therefore|thus|hence|so|it|we|get"
    r"|have|there|are|approximately|approx|about|around|roughly|exactly|total)\}"
    r"|\\(?:approx|sim|implies ?)|:(?=.))+[=:;]?(?!$)|^=(?!$)"
)
_LABEL = re.compile(r"((?:\\text\{[^{}]*\})+):(?=.)")
_NEGATIVE = re.compile(r"\\text\{(?:minus|negative)\}(?=[0-9.\\(])")
_MONEY = re.compile(r"([-+]?)\\text\{(dollar|cent|euro|pound|yen|rupee|currency|rs|usd|eur|gbp)\}(?=[-0-9.\\(])")
_MULTIPLIER = re.compile(rf"(?<=[0-9}}])\\text\{{({'|'.join(MULTIPLIERS)})s?\}}")
_CARDINAL_WORD = rf"\\text\{{(?:{'|'.join([*SMALL, *SCALES])})\}}"
_CARDINAL = re.compile(rf"{_CARDINAL_WORD}(?:-?{_CARDINAL_WORD})*(?=\\text|$)")
_ORDINAL = re.compile(r"(?<=[0-9])(?:-?\\text\{(?:st|nd|rd|th)\}|\^\{\\text\{(?:st|nd|rd|th)\}\})")
_CHOICE = re.compile(r"([A-Z])\)")
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_TRIG_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\^\\circ")
_DEGREES_AND_DIGITS = re.compile(r"\^\\circ ?[0-9]")
_VARIABLE = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+|([A-Za-df-hj-z])")


def has_variables(text: str) -> bool:
    """Whether the value in a spelled expression has a letter that is no word, no command, no e and no i."""
    return any(found[1] for found in _VARIABLE.finditer(text.rpartition("=")[2]))


def known_word(letters: str, spaced: bool, units: bool, after_space: bool) -> bool:
    """Whether bare letters are a word: a connective always, a unit if `units` (with `after_space` only after a space)."""
    word = letters.lower()
    return word in _BARE or (units and word in _BARE_UNITS and (spaced or not after_space))


def without_lead(text: str) -> str:
    """The expression without a phrase such as "The answer is" in front; with `=` for a label's colon, and `(C)` for `C)`."""
    found = _LEAD.match(text)
    text = _TRAIL.sub("", text[found.end() :].lstrip(" ,;:") if found else text)
    if label := _LABEL.match(text):
        text = f"{label[1]}={text[label.end() :]}"
    return f"({text}" if _CHOICE.fullmatch(text) else text


def letters_of(text: str) -> str | None:
    """The letters and digits of an expression in lower case, or None where it has more than those and punctuation."""
    inner = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    bare = re.fullmatch(r"(?:[A-Za-z0-9'` .(),;]|(?<=[a-z])-(?=[a-z]))*", inner)
    return re.sub(r"[^a-z0-9]", "", inner.lower()) if bare else None


def is_words(text: str) -> bool:
    r"""Whether an expression starts with words: those in `\text{}` that are no quantity, or four letters in a row."""
    if letters_of(text) is None or text[0].isdigit():
        return False
    if r"\text" not in text:
        return re.search("[A-Za-z]{4}", text) is not None
    found = set(re.findall(r"\\text\{([^{}]*)\}", text))
    only_joined = found <= {"and", "or"} and re.search("[0-9]", text)
    return not only_joined and quantity(text) is None


def quantity(text: str) -> tuple[str, str] | None:
    """One value as (expression without words, unit or ""), or None where a word is not understood."""
    text = without_lead(text).replace(r"\text{per}\text{cent}", r"\text{percent}")
    text = _ORDINAL.sub("", _CARDINAL.sub(_in_digits, text))
    if negative := _NEGATIVE.match(text):
        text = f"-{text[negative.end() :]}"
    text = _MULTIPLIER.sub(lambda found: rf"\cdot{MULTIPLIERS[found[1]]}", text)
    if r"^\circ" in text and _TRIG.search(text):
        text = _TRIG_DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)
    money = _MONEY.match(text)
    unit = ""
    if money:
        unit, text = _unit(rf"\text{{{money[2]}}}") or "", money[1] + text[money.end() :]
    if (tail := _TAIL.search(text)) and tail.start():
        after = _unit(tail[0])
        if after is None:
            return None
        if unit and after.startswith("/"):
            after = f"{unit} {after}"
        elif unit and after and after != unit:
            return None
        unit, text = after or unit, text[: tail.start()]
    if _DEGREES_AND_DIGITS.search(text):
        return None
    if r"^\circ" in text and not unit:
        text, unit = text.replace(r"^\circ", ""), "degree"
    return (text, unit) if r"\text" not in text else None


def _in_digits(found: re.Match[str]) -> str:
    number = cardinal(re.findall(r"\{([a-z]+)\}", found[0]))
    return found[0] if number is None else str(number)


def _unit(tail: str) -> str | None:
    """The one name of a unit, or None where the words could change the number."""
    units: list[str] = []
    power, head, linked = 1, "", False
    for word, circle, exponent, slash, letters in _PART.findall(tail):
        word = word or letters
        if circle:
            units.append("degree")
            head = "degree"
        elif exponent:
            if not units:
                return None
            units[-1] += f"^{exponent}"
        elif slash or word == "per":
            linked = bool(units)
            units.append("/")
        elif word in _POWERS_AFTER and units:
            units[-1] += f"^{_POWERS_AFTER[word]}"
        elif word in _POWERS:
            power, head = _POWERS[word], head or word
        elif word in ("frac", "cdot") or (word == "in" and not units and tail.startswith("(")):
            continue
        elif not word.replace("'", "").isalpha() or _CHANGING.fullmatch(word):
            return None
        elif word in _LINKS and units:
            linked = True
        elif word not in _TRAILING or not units:
            name = _named(word) + (f"^{power}" if power > 1 else "")
            power = 1
            units.append(name)
            head = head if linked else word
    if units and units[0] == "degree" and units[1:] and units[1] in ("celsius", "fahrenheit"):
        del units[0]
        head = "degree"
    if power > 1 and not units:
        units, head = [f"unit^{power}"], "unit"
    plural = head.endswith("s") and len(head) > 3 and head not in _NO_PLURALS
    if units and not (plural or _named(head) in _ALL_UNITS):
        return None
    return " ".join(units) if len(units) < 7 else None


def _named(word: str) -> str:
    """A unit's one name; another word without the ending of its plural."""
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in _UNITS:
            return _COMPOUND.get(_UNITS[form], _UNITS[form])
    return word.removesuffix("s")
