"""The spellings of a number by kind: each in a box, after both marks and as the last number of a text."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qthink_core.benchmarks.graders import grade
from qthink_core.benchmarks.graders.numbers.spelling import plain
from qthink_core.benchmarks.graders.numbers.statement import value
from qthink_core.benchmarks.graders.numbers.vocabulary import SCALES, SMALL, cardinal

OPERATORS = r"+ - * × ÷ · x X − ∗ ⋅ \times \cdot \div"
PLACES = [r"\boxed{%s}", "The answer is %s.", "#### %s", "So it is %s"]


def is_right(gold: object, answer: str) -> bool:
    return grade("gsm8k", str(gold), answer).verdict == "right"


def placed(spellings: str) -> list[str]:
    return [place % spelling for spelling in spellings.split(";") for place in PLACES]


RIGHT = {
    "a sign of currency": (
        "18",
        r"$18;€18;£18;¥18;₹18;₽18;₩18;₪18;₫18;₴18;₱18;฿18;￥18;＄18;18€;18 ¥;18¢;\$18;\pounds 18;18$",
    ),
    "a code of a currency": (
        "18",
        "USD18;USD 18;EUR 18;Rs18;Rs. 18;18 CHF;18USD;A$18;US$18;HK$ 18;R$18;18 Rs",
    ),
    "a negative number": (
        "-18",
        r"-18;−18;－18;﹣18;‑18;➖18;-$18;$-18;-(18);-[18];-\{18\};-\left(18\right);-\text{18};(-18);minus 18;"
        "negative 18;负18;-18°C;-18 points;- (18)",
    ),
    "a thousand": (
        "1234",
        "1,234;1 234;1\u00a0234;1\u202f234;1\u2009234;1\u2007234;1'234;1’234;1٬234;1，234;1{,}234;1\\,234;1\\:234;1~234;"
        r"1\ 234;1\thinspace 234;"
        r"1,\!234;1\text{,}234",
    ),
    "millions": (
        "1234567",
        "1,234,567;1 234 567;1'234'567;12,34,567;1.234.567;１，２３４，５６７;١٬٢٣٤٬٥٦٧",
    ),
    "decimals": (
        "1234.5",
        r"1,234.5;1 234.50;1.234,5;1٬234٫5;1234．5;1.2345e3;1.2345 × 10^3;1.2345\times10^{3};12345 × 10⁻¹",
    ),
    "a fraction": (
        "0.5",
        r"½;1/2;1⁄2;.5;\frac{1}{2};\frac12;\tfrac 1 2;\dfrac{36}{72};\frac{1}{2}\text{ hour};½ mile;0٫5;5e-1",
    ),
    "a mixed number": (
        "3.5",
        r"3½;3 ½;3 1/2;3\frac{1}{2};3\tfrac12;3 and 1/2;3½ miles;\$3½",
    ),
    "a repeating decimal": (
        "1/3",
        r"0.(3);0.\overline{3};0.\bar{3};1/3",
    ),
    "a magnitude in words": (
        "5000000",
        "5 million;$5 million;5 Million dollars;5.0 million;5000 thousand;500万;500万元;50 lakh",
    ),
    "a unit": (
        "18",
        r"18cm;18 m;18 m/s;18 km/h;18 dollars/hour;18/day;18 per day;18 sq ft;18 m²;18 cm^2;18\text{ in}^2;"
        r"18\frac{\text{miles}}{\text{hour}};18\,\frac{km}{h};18 o'clock;"
        "18 percent;18%;18th;18-inch;18°;18°C;18 p.m.;|18|",
    ),
    "a typeface": (
        "18",
        r"\mathbf{18};{\bf 18};\textcolor{red}{18};\color{red}{18};\underline{18};\Large 18;\bm{18};"
        r"\mathrm{18~cm};**18**;`18`;\fbox{18};\framebox{18};\mathscr{18};18\qed;\mathstrut 18;\color[rgb]{1,0,0}{18};"
        r"\lbrace 18\rbrace",
    ),
    "letters of another script": (
        "18",
        "共18;は18;은18개;คือ18บาท;ответ18;είναι18;هو18;है 18;共**18**个;は*18*です;은 **18개**",
    ),
    "digits of another script": (
        "18",
        "１８;١٨;१८;๑๘;១៨",
    ),
    "an equation": (
        "18",
        r"9 \times 2 = 18;9 \cdot 2 = 18;9 x 2 = 18;36 ÷ 2 = 18;36 / 2 = 18;9x2=18;"
        "3/4 of 24 = 18;3 hours * $6/hour = $18;9 ⋅ 2 = 18;9∗2=18;9 eggs * $2 = $18;"
        r"(9)(2) = 18;1 * (9 + 9) = 18;9 + 9 = 10 + 8 = 18;x = 9 + 9 = 18;\frac{9 \times 4}{2} = 18;"
        r"9*2=<<9*2=18>>18;18 = 9 × 2;50% of 36 = 18;9 eggs at $2 = $18;2⁴ + 2 = 18;\sqrt{324} = 18;"
        r"\$9 + \$9 = \$18;9 + 9 &= 18;9 \times 2 & = 18;20 − 2 ≈ 18",
    ),
    "what ends a text": (
        "18",
        "18</s>;18<|im_end|>;18.;18 .;<b>18</b>;18 eggs",
    ),
}
NEITHER = {
    "a power or an index": ("18²;18⁴;18⁰;18ⁿ;18^2;18^{2};18**2;x^{18};18₂;18_{16};18ᵢ;18ᶻ;18 squared;10^18"),
    "a function": (r"√18;\sqrt{18};∛18;\sqrt[3]{18};\log 18;sqrt(18);f(18);half of 18;twice 18;∑18;¬18;18∞;18‰;⌊18.5⌋"),
    "a relation": ("≥18;\\leq 18;≠18;=\u033818;>18;18 < x;\\neq 18;more than 18;at least 18;±18;18 ± 2;18+"),
    "another sign": (r"-18;−(18);-\left(18\right);-\text{18};--18;-(-(18));minus 18;—18;⁻18"),
    "a variable or a magnitude": ("18k;18K;18M;18n;18x;18xy;18 million;18 thousand;18万;18π;$18m;18bn;18 hundred"),
    "an operation": (
        "18 × n;18·n;18÷n;n÷18;n/18;18 - x;18 + x;9 × 18;18 * 2;20 - 18;18 × 2;(18)(2);2(18);18 mod 5;18\u20622;18∶n"
    ),
    "several numbers": ("18 to 20;18-20;18–20;18:2;18 or 20;18 20;18/2;18, 20;18 and 20;18|2;18%2"),
    "a whole and a fraction": (r"18½;18 ½;18 1/2;18\frac{1}{2};18-1/2;18+1/2;18 and a half;18↉;18⅓"),
    "joined digits": ("18,5;1,8;18,50;1.8.0;5'18;18_5;18:30;18.5;0.18;118;1 8;18 5;1,18;18/11/2026;2026-11-18;0x18"),
    "a decimal that goes on": (r"18.0(1);18.\overline{1};18.0…1;18.0000000000000000000000001"),
    "a name": ("x18;B18;mp18;x_18;CO_{18}"),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_a_spelling_of_one_number_has_its_value(kind):
    gold, spellings = RIGHT[kind]
    assert [answer for answer in placed(spellings) if not is_right(gold, answer)] == []
    assert [answer for answer in placed(spellings) if is_right("19", answer)] == []


@pytest.mark.parametrize("kind", NEITHER)
def test_what_must_be_computed_or_interpreted_is_never_right_by_one_of_its_numbers(kind):
    assert [answer for answer in placed(NEITHER[kind]) if is_right("18", answer)] == []


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("18", "The answer isn't 5, it is 18."),
        ("18", "The answer isn’t **5**, it is **18**."),
        ("18", "The answer is not 5 but 18."),
        ("18", "It can't be 5, so it is 18, not 6."),
        ("18", "It is 18 rather than 5."),
        ("18", "是18，不是20"),
        ("18", "Ответ 18, а не 20"),
        ("18", "The answer is 18 in 2 days."),
        ("18", r"\boxed{\Rightarrow 18}"),
        ("18", "The answer is 18 eggs (9 pairs)."),
        ("18", "The answer is 18 of 20."),
        ("18", "It goes from 10 to 18."),
        ("18", "The answer is eighteen. There were 20."),
        ("218", r"20 \boxed{\text{two hundred and eighteen}}"),
        ("218", "20 #### Two hundred eighteen dollars"),
        ("18", "#### 18\n\n5 steps"),
        ("18", "#### 2. Add\nIt is 18"),
        ("18", "#### 18\n#### Done"),
        ("20", "#### 18\n#### 20"),
        ("18", "The answer is 18. So the answer is clear."),
        ("18", "The answer is:\n- 18"),
        ("18", "Total - 18"),
        ("-18", "The total is - 18"),
        ("18", r"Mark it with \boxed{}. It is 18"),
        ("18", r"\\boxed{18} of 20"),
        ("18", r"\boxed 18 of 20"),
        ("18", r"\boxed{5} \boxed{18}"),
        ("18", "The area is 18 m^2"),
        ("18", "The area is 18 m2"),
        ("18", "The answer is 9 × 2 → 18"),
        ("18", "The answer is 9 times 2 is 18"),
        ("18", "There are 18!"),
        ("8", "The answer is 8 dozen."),
    ],
)  # fmt: skip
def test_the_number_that_the_text_states_counts(gold, answer):
    assert is_right(gold, answer)
    assert not any(is_right(other, answer) for other in (2, 5, 6, 9, 10, 18, 20, 96) if str(other) != gold)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("18", "The answer isn't 18."),
        ("18", "It is not 18"),
        ("18", "答案不是18"),
        ("18", "It cannot be equal to 18."),
        ("18", "18 is not the answer"),
        ("18", "20, for 18 is wrong"),
        ("18", "The answer is 20 - 18"),
        ("18", "The answer is 18, 20."),
        ("18", "The answer is 18 & 20"),
        ("18", "The answer is 18 hours and 30 minutes"),
        ("18", "The answer is 18 feet 6 inches"),
        ("30", "It takes 18 hours 30 minutes"),
        ("18", "The answer is 18h30"),
        ("18", "The answer is eighteen hundred"),
        ("18", "The answer is eighteen or nineteen"),
        ("18", "18% of 50"),
        ("2", "The answer is 18 is 2 less than 20"),
        ("18", "三分之一的-18"),
        ("18", "答えはー18"),
        ("18", "共18千"),
        ("18", "18Ⅷ"),
        ("18", "18ᵗ"),
        ("18", r"-\text{18}"),
        ("182", "18\u20622"),
        ("1234", "The answer is 1&234"),
        ("1234", r"\boxed{1 & 234}"),
        ("1234.5", "The answer is 1 234.5.6"),
        ("18.0", "The answer is 18.0..."),
        ("18.5", r"\lfloor 18.5 \rfloor"),
        ("18", r"\boxed{18, 20}"),
        ("18", r"\boxed{(x, 18)}"),
        ("18", r"\boxed{x = 20 \text{ or } x = 18}"),
        ("18", r"\boxed{18\text{ to }20}"),
        ("18", r"\boxed{18!}"),
        ("18", r"\boxed{18|n}"),
        ("18", r"\boxed{n \% 18}"),
        ("18", r"\boxed{18 \text{ times } n}"),
        ("18", r"\boxed{18 \text{ less than } n}"),
        ("18", r"\boxed{18 \text{ percent of } x}"),
        ("18", r"\boxed{18 \equiv 0 \pmod 3}"),
        ("18", r"\boxed{\unknown 18}"),
        ("18", r"It is \unknown 18"),
        ("-18", r"\boxed{|-18|}"),
        ("18", r"\boxed{\cancel{18}}"),
        ("18", r"\boxed{n \times \text{ eggs } 18}"),
        ("18", r"18 eggs \boxed{\text{none}}"),
        ("18", r"18 eggs \boxed{n^2}"),
    ],
)
def test_a_number_that_the_text_does_not_state_is_not_its_answer(gold, answer):
    assert not is_right(gold, answer)


@given(
    st.integers(1, 10**9), st.integers(0, 999), st.sampled_from([",", " ", "\u00a0", "\u202f", "'", "’", "٬", "{,}", r"\,"])
)
def test_any_separator_between_groups_of_three_digits_is_read(number, thousandths, separator):
    text = f"{number:,}".replace(",", separator) + f".{thousandths:03}"
    gold = f"{number}.{thousandths:03}"
    assert all(is_right(gold, place % text) for place in PLACES)
    assert not any(
        is_right(part, place % text)
        for place in PLACES
        for part in text.split(separator)
        if Fraction(part) != Fraction(gold)
    )


@given(st.integers(0, 500), st.integers(1, 40), st.integers(2, 41))
def test_a_mixed_number_is_its_whole_part_and_a_proper_fraction(whole, top, bottom):
    gold = f"{whole * bottom + top}/{bottom}"
    for text in (f"{whole} {top}/{bottom}", rf"{whole}\frac{{{top}}}{{{bottom}}}"):
        assert all(is_right(gold, place % text) == (top < bottom) for place in PLACES)
        assert not any(
            is_right(whole, place % text) or is_right(f"{top}/{bottom}", place % text) for place in PLACES if whole
        )


@given(
    st.integers(2, 99),
    st.integers(2, 99),
    st.sampled_from(OPERATORS.split()),
    st.sampled_from(["", "$", r"\$"]),
)
def test_an_equation_states_its_result_and_an_expression_states_nothing(left, right, operator, currency):
    numbers = {left, right, 100}
    expression = f"{currency}{left} {operator} {currency}{right}"
    for place in PLACES:
        assert is_right(100, place % f"{expression} = {currency}100")
        assert is_right(100, place % f"{currency}100 = {expression}")
        assert not any(is_right(number, place % expression) for number in numbers)


def test_cardinals_are_read_up_to_trillions_and_other_rows_of_words_are_none():
    tens = [word for word, number in SMALL.items() if number >= 20]
    for first, second in itertools.product(SMALL, SMALL):
        together = cardinal([first, second])
        expected = SMALL[first] + SMALL[second] if first in tens and 0 < SMALL[second] < 10 else None
        assert together == expected
    long = "two million three hundred five thousand one hundred twelve"
    assert cardinal(long.split()) == 2_305_112
    for words in ["hundred", "two thousand million", "two hundred hundred", "twenty hundred", ""]:
        assert cardinal(words.split()) is None, words
    assert set(SCALES) & set(SMALL) == set()


@pytest.mark.parametrize("text", ["7", "-7", "$7", "-$7", "$-7", "7%", "+7", " 7.0 ", "7e0", "1,007", "3 1/2", "7/2"])
def test_a_bare_number_has_a_value(text):
    assert value(plain(text)) is not None


@pytest.mark.parametrize(
    "text", ["", "seven", "7 8", "7 eggs", "3 + 4", "7/0", "--7", "x7", "7k", "1e9999", "7" * 101, "1,2"]
)
def test_what_is_no_bare_number_has_none(text):
    assert value(plain(text)) is None
