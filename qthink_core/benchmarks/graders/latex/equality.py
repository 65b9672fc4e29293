r"""Whether an answer equals a gold: decided by text and exact numbers, or left to computer algebra as a table of questions.

What is left to computer algebra has only signs from `_READABLE`, because the parser drops or misreads others. Everything
else is right only as the same text.
"""

import re
from fractions import Fraction

from qthink_core.benchmarks.graders.commands import names
from qthink_core.benchmarks.graders.latex import numbers, values, words
from qthink_core.benchmarks.graders.latex.spelling import spelled
from qthink_core.benchmarks.graders.latex_equality import Cell

# A list of more values is compared only if all are plain numbers.
MAX_VALUES = 20

_COMMANDS = names(
    "frac sqrt binom cdot div pi infty cup cap setminus emptyset mathbb le ge ne sin cos tan cot sec csc arcsin arccos "
    "arctan sinh cosh tanh ln log alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau "
    "phi chi psi omega Delta Gamma Theta Lambda Sigma Phi Psi Omega ell begin end"
)
_COMMAND = rf"\\(?:{'|'.join(sorted(_COMMANDS))})(?![A-Za-z])"
_READABLE = re.compile(rf"(?:{_COMMAND}|\\\\|\\[{{}}]|[A-Za-z0-9+\-*/^_=<>|(){{}}\[\].,&]|!(?!!)| (?![0-9]))*+")
# Signs that are readable alone, but not in this order: the parser would drop them or find another value.
_MISREAD = re.compile(
    r"""(?<!log)_\{(?![A-Za-z0-9]+\})  # an index that is an expression
    |_\{[0-9]*[A-Za-z]+[0-9]
    |[0-9)\]}]_                        # an index of a number, or a permutation
    |(?:[\^}]|sqrt)\{[^{}]*\}[0-9]     # digits behind an argument or an absolute value: 5^0 1
    |[0-9)}]\|[0-9]
    |(?<![A-Za-z\\])[A-Za-hj-z][0-9]   # x1 may be an index
    |(?<!sqrt)\[[^,\[\]()]*\]          # a value in square brackets
    |/[0-9.]+(?:[A-Za-z(]|\\(?:frac|sqrt|pi))  # 1/2x
    |--                                # may be a dash
    |\\infty\]|\[[-+]?\\infty          # a closed infinite end""",
    re.VERBOSE,
)
_LETTERS = re.compile(r"\\[A-Za-z]+(?:\{[a-z]*matrix\})?|\\mathbb\{[A-Z]\}|([A-Za-z])(?=[A-Za-z])")
# Without a sign of multiplication the parser takes `2(1/2)` for a mixed number, and `f(2)` is a function.
_FUNCTION = r"\\(?:sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|ln|log)(?:[_^]\{[^{}]*\})*"
_FACTORS = re.compile(
    rf"{_FUNCTION}\(?|\\binom|\\frac\{{[^{{}}]*\}}\{{|(?<=[0-9)])(?=\(|\\(?:frac|sqrt|binom|pi))|(?<=\}})(?=\()"
)
Table = list[list[Cell]]


def same(gold: str, answer: str) -> bool | Table:
    """True or False where text and exact numbers decide, or the table for `latex_equality.compare`.

    Row by row, a cell says whether that value of the gold and that value of the answer are equal.
    """
    wanted = words.without_lead(_spelled_gold(gold))
    if not wanted or wanted == words.without_lead(_spelled_gold(answer)):
        return bool(wanted) or gold.strip() == answer.strip()
    units = not words.has_variables(wanted)
    given = words.without_lead(spelled(answer, lambda word, spaced: words.known_word(word, spaced, units, False)))
    if _compact(wanted) == _compact(given) or wanted.replace(";", ",") == given.replace(";", ","):
        return True
    if words.is_words(wanted):
        return words.letters_of(wanted) == words.letters_of(given)
    if values.is_relation(wanted) or values.is_relation(given) or values.is_set_expression(wanted + given):
        return _same_set(wanted, given)
    return _same_values(wanted, given)


def _spelled_gold(gold: str) -> str:
    return spelled(gold, lambda word, spaced: words.known_word(word, spaced, True, True))


def _compact(text: str) -> str:
    return numbers.exact(numbers.with_thousands(text), False).replace(";", ",").replace(r"+\infty", r"\infty")


def _same_set(wanted: str, given: str) -> bool | Table:
    """Relations and unions of intervals, each as a whole."""
    wanted, given = (_compact(values.as_union(values.without_member(text))) for text in (wanted, given))
    related = [values.is_relation(text) for text in (wanted, given)]
    if all(related):
        if values.relation(wanted) == values.relation(given):
            return True
    elif any(related):
        if related[1] and not values.is_interval(wanted) and not values.is_set_expression(wanted):
            return False
        sets = [values.as_intervals(text) if one else text for one, text in zip(related, (wanted, given), strict=True)]
        if sets[0] is None or sets[1] is None:
            return False
        wanted, given = sets[0], sets[1]
    else:
        wanted, given = _unnamed(wanted), _unnamed(given)
        if "=" in wanted + given or values.count(wanted) != values.count(given):
            return wanted == given
    return wanted == given or _table([[_question(wanted, [given])]])


def _unnamed(text: str) -> str:
    name, *more = text.split("=")
    return more[0] if len(more) == 1 and values.is_name(name) else text


def _same_values(wanted: str, given: str) -> bool | Table:
    golds, answers = values.read(wanted), values.read(given)
    if len(golds.sides) != len(answers.sides) or not _same_brackets(golds, answers):
        return False
    if golds.brackets == "()" and not answers.brackets:
        answers = values.Values("()", sorted(answers.sides))
    ordered = "(" in golds.brackets + answers.brackets or "[" in golds.brackets + answers.brackets
    if len(golds.sides) > 1 and (decided := _same_numbers(golds, answers, ordered)) is not None:
        return decided
    if len(golds.sides) > MAX_VALUES:
        return False
    return _table(
        [
            [
                _same_value(one, other) if row == column or not ordered else False
                for column, other in enumerate(answers.sides)
            ]
            for row, one in enumerate(golds.sides)
        ]
    )


def _same_brackets(golds: values.Values, answers: values.Values) -> bool:
    """Whether the brackets fit: a point may be given as `x=1, y=2`, a bare list as a set, one of three or more in `()`."""
    if golds.brackets == answers.brackets or len(golds.sides) == 1:
        return True
    if golds.brackets == "()":
        named = [sides[0] for sides in answers.sides if len(sides) > 1 and values.is_name(sides[0], False)]
        return answers.brackets == "" and len(set(named)) == len(golds.sides)
    if answers.brackets == "()":
        return golds.brackets == "" and len(golds.sides) > 2  # two values could be a point or an interval
    return golds.brackets in ("", "{}") and answers.brackets in ("", "{}")


def _same_numbers(golds: values.Values, answers: values.Values, ordered: bool) -> bool | None:
    """Whether two lists of plain numbers are equal, or None where they have other values."""
    found = [_number(one[0]) if len(one) == 1 else None for one in golds.sides + answers.sides]
    plain = [one for one in found if one is not None]
    if len(plain) < len(found):
        return None
    left, right = plain[: len(golds.sides)], plain[len(golds.sides) :]
    return left == right if ordered else sorted(left) == sorted(right)


def _number(text: str) -> Fraction | None:
    return numbers.rational(numbers.exact(text))


def _same_value(gold: list[str], answer: list[str]) -> Cell:
    """Whether one value equals another, each given as the sides of its equation; or the questions for computer algebra."""
    if len(gold) > 1 and len(answer) > 1 and not (gold[0] == answer[0] and values.is_name(gold[0])):
        return _same_equation(gold, answer)
    if len(gold) > 2 or (len(gold) == 2 and not values.is_name(gold[0], len(answer) > 1)):
        return False
    # `x+y=0` is an equation of its own more often than the name of a 0
    stated = answer[1:] if len(answer) > 1 and values.is_name(answer[0], gold[-1] != "0") else answer
    if len(stated) > 1 and stated is answer and values.is_name(answer[-1], False):
        stated = answer[:-1]
    return _all_equal(gold[-1], stated)


def _same_equation(gold: list[str], answer: list[str]) -> Cell:
    if len(gold) != 2 or len(answer) != 2:
        return False
    return _question("=".join(gold), ["=".join(answer)])


def _all_equal(gold: str, stated: list[str]) -> Cell:
    """Whether every stated side equals the gold."""
    wanted = words.quantity(gold)
    given = [words.quantity(one) if numbers.with_base(one) is None else (one, "") for one in stated]
    if numbers.with_base(gold):
        return _same_in_base(gold, stated)
    if wanted is None or any(one is None for one in given):
        return False
    questions: list[tuple[str, str]] = []
    for one in given:
        assert one is not None
        text, unit = one
        if wanted[1] and unit and unit != wanted[1]:
            return False
        cell = _same_one(wanted[0], text)
        if cell is False:
            return False
        questions += cell if isinstance(cell, list) else []
    return questions or True


def _same_one(gold: str, answer: str) -> Cell:
    if based := numbers.with_base(answer):
        value, other = numbers.value_in_base(*based), _number(gold)
        return value is not None and value == other and based[1] == 10
    gold, answer = values.without_brackets(gold), values.without_brackets(answer)
    e_notation = "e" not in re.sub(r"\\[A-Za-z]+", "", gold)
    gold, answer = numbers.exact(gold, False), numbers.exact(answer, e_notation)
    if gold == answer:
        return True
    wanted, given = numbers.rational(gold), numbers.rational(answer)
    if wanted is not None and given is not None:
        return wanted == given
    if r"\infty" in gold + answer:
        return gold.removeprefix("+") == answer.removeprefix("+")
    return _question(gold, [answer])


def _same_in_base(gold: str, stated: list[str]) -> Cell:
    """Whether one side has the gold's digits and base (or none), and every other side has the same value."""
    digits, base = numbers.with_base(gold) or ("", 0)
    value = numbers.value_in_base(digits, base)
    matched = False
    for side in stated:
        found = numbers.with_base(side)
        if found == (digits, base) or (len(stated) == 1 and side.strip("()") == digits):
            matched = True
        elif value is None or value != (numbers.value_in_base(*found) if found else _number(side)):
            return False
    return matched


def _question(gold: str, answers: list[str]) -> Cell:
    """The pairs that computer algebra has to find equal; False where it could not read one."""
    if not all(_readable(one) for one in [gold, *answers]):
        return False
    return [(_for_algebra(gold), _for_algebra(one)) for one in answers]


def _readable(text: str) -> bool:
    # the parser takes I for the imaginary unit
    return _READABLE.fullmatch(text) is not None and _MISREAD.search(text) is None and "I" not in text


def _for_algebra(text: str) -> str:
    """The text with a space between letters, which are variables, and a sign between factors."""
    spaced = _LETTERS.sub(lambda found: f"{found[1]} " if found[1] else found[0], text)
    return _FACTORS.sub(lambda found: found[0] or r"\cdot ", spaced)


def _table(table: Table) -> bool | Table:
    """The table, or the verdict where it needs no computer algebra."""
    if not all(any(row) for row in table):
        return False
    return all(row[place] is True for place, row in enumerate(table)) or table
