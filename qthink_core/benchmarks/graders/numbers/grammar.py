r"""The grammar of one unsigned number in plain characters, and its value.

    number   = mixed | power | fraction
    mixed    = whole spaces ["and" | "&"] top "/" bottom               3 1/2, with a proper fraction
    power    = decimal ("×" | "x" | "*" | "·") "10^" exponent    1.5 × 10^3
    fraction = decimal ["/" decimal]
    decimal  = joined [("e" | "E") exponent]                     1,234.5 and 1.5e3 and 0.(3)

Joined digits have a value in these forms: groups of three between commas, apostrophes or single spaces, or Indian groups
(`12,34,567`), with decimals after a full stop; groups of three between full stops where nothing else can be meant
(`1.234.567`, `1.234,50`, `1 234,50`). Other joined digits (`1,2`, `3,50`, `1.2.3`, `5'11`, `5_600`) have two readings and no
value.
"""

import re
from fractions import Fraction

MAX_NUMBER_CHARS = 100
MAX_EXPONENT_DIGITS = 3

_DECIMAL = (
    r"(?:[0-9]{1,40}\.[0-9]{0,40}\([0-9]{1,20}\)"
    r"|[1-9][0-9]{0,2}(?: [0-9]{3})++(?:[.,][0-9]++)?(?![0-9]|[.,'_/][0-9])"
    r"|[0-9]++(?:[.,'_][0-9]++)*+"
    r"|(?<![A-Za-z0-9.])\.[0-9]++)"
    r"(?:[eE][-+]?[0-9]++(?!\w))?"
)
NUMBER = re.compile(
    r"(?P<whole>[0-9]++) {1,3}(?:(?:and|&) {1,3})?(?P<part>[0-9]++) ?/ ?(?P<parts>[0-9]++)(?![.,'_/]?[0-9])"
    rf"|(?P<factor>{_DECIMAL}) ?[×x*·] ?10 ?\^ ?\(? ?(?P<power>-?[0-9]{{1,20}})(?: ?\))?"
    rf"|(?P<top>{_DECIMAL})(?: ?/ ?\$?(?P<bottom>{_DECIMAL}))?"
)
_REPEATING = re.compile(r"([0-9]+)\.([0-9]*)\(([0-9]+)\)")
_POINT_DECIMAL = re.compile(
    r"(?P<digits>[0-9]*|[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?:'[0-9]{3})+|(?: [0-9]{3})+)|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3})"
    r"(?P<decimals>\.[0-9]+)?"
)
_COMMA_DECIMAL = re.compile(
    r"(?P<digits>[1-9][0-9]{0,2}(?:(?:\.[0-9]{3}){2,}|\.[0-9]{3}(?=,)|(?: [0-9]{3})+(?=,)))(?:,(?P<decimals>[0-9]+))?"
)


def value(number: re.Match[str]) -> Fraction | None:
    """The rational number that a match of NUMBER states, or None where it has no single reading or is too long."""
    if len(number[0]) > MAX_NUMBER_CHARS:
        return None
    if number["whole"]:
        part, parts = int(number["part"]), int(number["parts"])
        return int(number["whole"]) + Fraction(part, parts) if 0 < part < parts else None
    if number["factor"]:
        factor, power = _decimal(number["factor"]), number["power"]
        too_long = len(power.lstrip("-")) > MAX_EXPONENT_DIGITS
        return None if factor is None or too_long else factor * Fraction(10) ** int(power)
    top, bottom = _decimal(number["top"]), _decimal(number["bottom"] or "1")
    return top / bottom if top is not None and bottom else None


def _decimal(text: str) -> Fraction | None:
    digits, _, exponent = text.lower().partition("e")
    if len(exponent.lstrip("+-")) > MAX_EXPONENT_DIGITS:
        return None
    if repeating := _REPEATING.fullmatch(digits):
        whole, fixed, period = repeating.groups()
        tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
        number = Fraction(f"{whole}.{fixed or 0}") + tail
    elif plain := _POINT_DECIMAL.fullmatch(digits):
        number = Fraction(re.sub("[,' ]", "", plain["digits"] or "0") + (plain["decimals"] or ""))
    elif plain := _COMMA_DECIMAL.fullmatch(digits):
        number = Fraction(re.sub("[. ]", "", plain["digits"]) + "." + (plain["decimals"] or "0"))
    else:
        return None
    return number * Fraction(10) ** int(exponent or 0)
