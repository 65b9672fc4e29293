"""The words, units and currencies that change a number or leave it as it is."""

from fractions import Fraction


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ISO 4217, and signs that are letters.
CURRENCIES = _words(
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP "
    "CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR "
    "ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT "
    "MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RMB RON RSD RUB RWF SAR "
    "SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES "
    "VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWL BTC ETH usd eur gbp inr cny jpy rmb aud cad "
    "Tk Ksh KSh Dh Dhs DM Bs Rs rs RS Re Rp RM Fr Kč zł kr Kr"
)

# Words that multiply the number before them. A dozen does not: eleven of GSM8K's questions ask how many dozens.
MAGNITUDES = {
    word: 10**power
    for power, words in {
        1: "tens",
        2: "hundred hundreds",
        3: "thousand thousands",
        4: "万 萬 만",
        5: "lakh lakhs lac",
        6: "million millions mln mio mn",
        7: "crore crores",
        8: "亿 億 억",
        9: "billion billions bn bln",
        12: "trillion trillions tn 兆",
    }.items()
    for word in words.split()
}

# One letter after a number is a variable or a magnitude, unless it is one of these; `m` is a million after a currency sign.
UNIT_LETTERS = _words("m g s h l L")
UNIT_PAIRS = _words(
    "km cm mm dm nm kg mg lb oz fl ft in yd mi hr ml dl cl mL dL cL pt qt st nd rd th pm am sq cu kW kB MB GB TB Hz ac ha "
    "gal mo wk yr yo of US UK PM AM"
)
LENGTHS = "km|hm|dm|cm|mm|m|in|ft|yd|mi|feet|foot|inch(?:es)?|(?:centi|milli|kilo)?met(?:er|re)s?|miles?|yards?|units?"

# After these a minus with a space is a sign, and no dash.
VERBS = _words("is are was were be get gets got equal equals have has make makes give gives to by at of than become becomes")
NEGATIVE = _words("minus negative moins menos meno минус 负 負 マイナス 마이너스")
# Operators in words: an expression after a number, in a text and in a box.
OPERATES = _words("plus minus divided multiplied squared cubed factorial mil repeating recurring")
OPERATES_IN_A_BOX = OPERATES | _words("or to and over mod choose x")
# Endings of what is before a number that it has no value after; negations are apart.
FUNCTION_BEFORE = (
    r"(?:half|twice|double|triple|thrice|root|squared?|cubed?|thirds?|quarters?|fourths?|fifths?|tenths?|factorial)"
    r"(?: of)?(?: the)?"
    r"|(?:more|less|fewer|greater|higher|lower|larger|smaller|bigger) than|at least|at most"
    r"|plus|times|(?:multiplied|divided) by|sqrt|log|ln|lg|exp|sin|cos|tan|abs|floor|ceil|round|max|min"
)
FUNCTION_BEFORE_IN_A_BOX = FUNCTION_BEFORE + "|minus|not|no|over|under|above|below|between|from|to|except|or|and|than"

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
SMALL = {word: value for value, word in enumerate(_UNITS.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), start=2)
}
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def cardinal(words: list[str]) -> Fraction | None:
    """The value of an English cardinal in lower-case words without `and`, or None where they do not make one.

    `two hundred five` is 205; `two five` and `hundred` have no value.
    """
    total, group, last = 0, 0, 10**15
    for word in words:
        if word in SMALL:
            value = SMALL[word]
            if not (last >= 100 or (20 <= last < 100 and 0 < value < 10)):
                return None
            group += value
            last = value
        elif word == "hundred" and 0 < group < 10 and last < 10:
            group, last = group * 100, 100
        elif word in SCALES and word != "hundred" and group and (not total or total % (1000 * SCALES[word]) == 0):
            total, group, last = total + group * SCALES[word], 0, 1000
        else:
            return None
    return Fraction(total + group) if words else None
