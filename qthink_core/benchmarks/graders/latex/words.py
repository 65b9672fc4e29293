r"""Words in a spelled expression: units, multipliers such as "million", and phrases around a number.

A unit means nothing where only one side has one: the problem asked for it. Where both have one, they must agree, with
"inches", "in" and "inch" as one unit and "square" as its second power; units are never converted.
What follows a number is a unit where its last word is a known unit or a plural, and no word can change the number, such as
"thirds", "squared", "more", "to" or "not". Outside `\text{}` only known words are read, and no unit where the gold has
variables, since `5ab` is a product. "million" multiplies. Before a number, only phrases such as "The answer is" are dropped.
Any other word makes an expression unreadable, and it is right only as the same text.
"""

import re

_UNITS = {
    name: row.split()[0]
    for row in """cm centimeter centimetre|mm millimeter millimetre|km kilometer kilometre|m meter metre|in inch|ft foot feet
yd yard|mi mile|nm|kg kilogram|g gram|mg milligram|lb pound|oz ounce|ton tonne|l liter litre|ml milliliter millilitre|gal gallon
s sec second|min minute|h hr hour|day|week|month|year yr|dollar usd buck|cent|euro eur|yen jpy|rupee inr|peso|franc|gbp
degree deg|radian rad|percent pct percentage|mph|kph kmh|unit|celsius C|fahrenheit F|newton N|joule J|watt W|volt V|kelvin K
acre|cup|quart|pint|point|pt|digit|way|coin|penny|nickel|dime|person people|child children|man men|woman women
student|boy|girl|card|ball|marble|apple|book|number|integer|solution|value|root|term|factor|divisor|pair|triple|triangle
side|edge|face|vertex vertices|vertice|diagonal|line|path|route|arrangement|combination|permutation|outcome|choice
subset|element|tile|square|rectangle|block|cube|page|word|letter|game|team|player|match|vote|chair|seat|ticket|car|bus|trip
lap|step|turn|hand|die dice|time|page|sheep|fish|goose geese|mouse mice""".replace("\n", "|").split("|")
    for name in row.split()
}
_UNITS |= {"L": "l", "mph": "mile / hour", "kph": "km / hour", "kmh": "km / hour", "mile": "mile", "mi": "mile", "hr": "hour",
           "h": "hour", "hour": "hour", "pounds": "lb", "cents": "cent", "¢": "cent"}  # fmt: skip
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_AFTER = {"squared": 2, "cubed": 3}
MULTIPLIERS = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "lakh": 10**5, "crore": 10**7,
}  # fmt: skip
NUMBERS = {
    name: number
    for number, name in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty".split()
    )
} | {name: 10 * number for number, name in enumerate("thirty forty fifty sixty seventy eighty ninety".split(), 3)}
_CHANGING = re.compile(
    r"half|halves|thirds?|quarters?|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|\w*teen|hundred|thousand|\w+ie|\w*illion)ths?"
    r"|\w*illions?|gross|score|myriads?|tens|\w*hundreds?|thousands?|dozens?|lakhs?|crores?|couple|double|twice|triple"
    r"|plus|minus|times|over|divided|multiplied|squared|cubed|factorial|power|powers|root|roots|mod|modulo|base|choose"
    r"|\w+ties|\w+teens|to|through|or|and|than|more|less|fewer|least|most|not|no|non|never|none|neither|nor|except|without|but|if|when|where"
    r"|unless|is|isn|are|was|wrong|incorrect|false|between|either|both|about|negative|positive|inverse|reciprocal"
)
_LINKS = frozenset("of in on from at each for per with".split())
_TRAILING = frozenset("tall long high wide deep old away apart left total each altogether remaining".split())
_HEDGE = r"\\text\{(?:approximately|approx|about|around|roughly|exactly)\}"
_NO_PLURALS = frozenset("is was has this thus us yes does its his less ss as".split())

_BARE_OTHER = frozenset("and or not am pm to answer approximately approx about exactly the final solution".split())
_BARE_UNITS = frozenset(
    form for name in _UNITS if len(name) > 1 for form in (name, f"{name}s", f"{name}es")
) | {"inches", "squared", "cubed", "square", "sq", "cubic", "per"}

_WORD = r"\\text\{[^{}]*\}"
_ATOM = rf"{_WORD}(?:\^\{{-?[0-9]\}})?"
_TAIL = re.compile(
    rf"(?:{_ATOM}|\\frac\{{(?:{_ATOM})+\}}\{{(?:{_ATOM}|[hmsg](?:\^\{{[23]\}})?)\}}|\^\\circ(?: ?[CF](?![A-Za-z]))?"
    rf"|(?<=\}})(?:/[hms](?![A-Za-z{{\\])|/(?=\\text)|\\cdot(?=\\text))|\((?:{_ATOM}|/)+\))+$"
)
_PART = re.compile(r"\\text\{([^{}]*)\}|(\^\\circ)|\^\{(-?[0-9])\}|(/|\}\{)|([A-Za-z]+)(?![A-Za-z{])")
_TRAIL = re.compile(rf"(?<=.)[,;]?{_HEDGE}$")
_LEAD = re.compile(
    r"(?:\\text\{(?:the|final|correct|answer|result|solution|value|is|equals|option|choice|therefore|thus|hence|so|it|we|get|have"
    r"|approximately|approx|about|around|roughly|exactly|total)\}|\\approx|\\therefore|:(?=.))+(?:=|:|;)?(?!$)|^=(?!$)"
)
_MONEY = re.compile(r"(-?)\\text\{(dollar|cent|euro|pound|yen|rupee|usd|eur|gbp)\}(?=[-0-9.\\(])")
_MULTIPLIER = re.compile(rf"(?<=[0-9}}])\\text\{{({'|'.join(MULTIPLIERS)})s?\}}")
_NUMBER_WORD = re.compile(rf"\\text\{{({'|'.join(NUMBERS)})\}}(?=\\text|$)")
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_TRIG_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\^\\circ")
_VARIABLE = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+|([A-Za-df-hj-z])")


def has_variables(text: str) -> bool:
    """Whether a spelled expression has a letter that is no word, no command, no e and no i; what it is named does not count."""
    return any(found[1] for found in _VARIABLE.finditer(text.rpartition("=")[2]))


def known_word(letters: str, spaced: bool, units: bool, after_space: bool) -> bool:
    """Whether bare letters are a word: a connective always, a unit where `units` says so (`after_space`: only after a space)."""
    word = letters.lower()
    if word in _BARE_OTHER or word in MULTIPLIERS or word in NUMBERS or word.removesuffix("s") in MULTIPLIERS:
        return True
    return units and word in _BARE_UNITS and (spaced or not after_space)


def without_lead(text: str) -> str:
    """The expression without a phrase such as "The answer is" or "approximately" in front of it."""
    found = _LEAD.match(text)
    return _TRAIL.sub("", text[found.end() :].strip(" .,;:") if found else text)


def plain_words(text: str) -> str | None:
    """The letters and digits of an expression that consists of words, in lower case; None where it does not."""
    inner = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    bare = re.fullmatch(r"(?:[A-Za-z0-9' .(),]|(?<=[a-z])-(?=[a-z]))*", inner)
    if not bare or not (r"\text" in text and re.search("[a-z]{2}", inner) or re.fullmatch("[A-Za-z]{4,}", inner)):
        return None
    return re.sub(r"[^a-z0-9]", "", inner.lower())


def quantity(text: str) -> tuple[str, str] | None:
    """One value as (expression without words, unit or ""), or None where a word is not understood."""
    text = _NUMBER_WORD.sub(lambda found: str(NUMBERS[found[1]]), without_lead(text))
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
        if unit and after and after != unit:
            return None
        unit, text = unit or after, text[: tail.start()]
    if r"^\circ" in text and not unit:
        text, unit = text.replace(r"^\circ", ""), "degree"
    return (text, unit) if r"\text" not in text else None


def _unit(tail: str) -> str | None:
    """The one name of a unit, or None where the words could change the number."""
    names: list[str] = []
    power, head, linked = 1, "", False
    for word, circle, exponent, slash, letters in _PART.findall(tail):
        word = word or letters
        if circle:
            names.append("degree")
            head = "degree"
        elif exponent:
            if not names:
                return None
            names[-1] += f"^{exponent}"
        elif slash or word == "per":
            names.append("/")
            linked = True
        elif word in _POWERS_AFTER and names:
            names[-1] += f"^{_POWERS_AFTER[word]}"
        elif word in _POWERS:
            power, head = _POWERS[word], head or word
        elif word in ("frac", "cdot") or (word == "in" and not names and tail.startswith("(")):
            continue
        elif not word.replace("'", "").isalpha() or _CHANGING.fullmatch(word):
            return None
        elif word in _LINKS and names:
            linked = True
        elif word not in _TRAILING or not names:
            name = _named(word) + (f"^{power}" if power > 1 else "")
            power = 1
            names.append(name)
            head = head if linked else word
    if names and names[0] == "degree" and names[1:] and names[1] in ("celsius", "fahrenheit"):
        del names[0]
        head = "degree"
    if power > 1 and not names:
        names, head = [f"unit^{power}"], "unit"
    plural = head.endswith("s") and len(head) > 3 and head not in _NO_PLURALS
    if names and not (plural or _named(head) in _UNITS.values()):
        return None
    return " ".join(names) if len(names) < 7 else None


def _named(word: str) -> str:
    """A unit's one name; another word without the ending of its plural."""
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in _UNITS:
            return _UNITS[form]
    return word.removesuffix("s")
