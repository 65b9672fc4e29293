r"""The hostile answers of answers.jsonl, by kind, and the program that writes the file: `python tests/hostile/answers.py`.

An answer is a list of (text, times): megabytes of one sign are a line of the file. Whether an answer is right is said here;
which of the other verdicts it gets is read from the file, so a verdict that changes is a line in a diff.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("answers.jsonl")
CANARY = "qthink-canary"
GOLDS = {"gsm8k": "18", "math500": r"3\sqrt{13}", "tooluse": '[{"Action": "f", "Action_Input": "{\\"a\\": 1}"}]'}
Parts = list[tuple[str, int]]


class Row(NamedTuple):
    """One answer to a gold of a benchmark: its kind, its parts, and its verdict, None where it is not known yet."""

    benchmark: str
    kind: str
    gold: str
    parts: Parts
    verdict: str | None = None

    @property
    def answer(self) -> str:
        """The text of the answer."""
        return "".join(text * times for text, times in self.parts)


CODE = [
    f"__import__('os').system('touch {CANARY}')", f"eval(\"open('{CANARY}','w')\")",
    f"exec(open('{CANARY}','w').write('x'))", f"open('{CANARY}','w').write('x')",
    f"[c for c in ().__class__.__base__.__subclasses__() if c.__name__=='Popen'][0](['touch','{CANARY}'])",
    f"(lambda: __import__('subprocess').run(['touch','{CANARY}']))()",
    f'S(\'__import__("os").system("touch {CANARY}")\')',
    f"Symbol('x').__class__.__init__.__globals__['sys'].modules['os'].mkdir('{CANARY}')",
    f"Integer(__import__('os').mkdir('{CANARY}'))", f"Function('f')(__import__('os').mkdir('{CANARY}'))",
    "().__class__.__mro__[1].__subclasses__()", "x.__init__.__globals__", "{0.__class__.__init__.__globals__}",
    "%(x)s%s%n%d%x", "{x!r:>99999999999}", "{:99999999999}", "%99999999999d", "{{7*7}}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    f"{{% for c in [].__class__.__base__.__subclasses__() %}}{{{{ c('touch {CANARY}') }}}}{{% endfor %}}", "${7*7}",
    "#{7*7}", "<%= 7*7 %>", "*{7*7}", f"$(touch {CANARY})", f"`touch {CANARY}`", f"; touch {CANARY} #",
    f"| touch {CANARY}", f"\n\ntouch {CANARY}\n", f"' || touch {CANARY} || '", f"cos\nsystem\n(S'touch {CANARY}'\ntR.",
    f"!!python/object/apply:os.system ['touch {CANARY}']", "!!python/name:os.system", "${jndi:ldap://127.0.0.1:1/x}",
    "file:///etc/passwd", "http://127.0.0.1:1/?x", '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>',
    "'; DROP TABLE answers; --", f"=cmd|' /C touch {CANARY}'!A0", '=HYPERLINK("http://127.0.0.1:1/","x")',
    "@SUM(1+1)*cmd|' /C calc'!A0", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>', "javascript:alert(1)", "[x](javascript:alert(1))", "![x](http://127.0.0.1:1/x.png)",
    "</td></tr></table><h1>x", "| a | b |\n|---|---|\n| c | d |", r"\input{/etc/passwd}",
    rf"\immediate\write18{{touch {CANARY}}}", r"\def\x{\x\x}\x", r"\csname end\endcsname",
    r"\newcommand{\frac}[2]{18}\frac12", r"\catcode`\@=11", r"\loop\iftrue\repeat", r"\expandafter\x\x",
    r"\unicode{x202e}", r"\href{javascript:alert(1)}{x}", r"\special{shell:touch x}",
    r"\directlua{os.execute('touch x')}",
]  # fmt: skip
CONTROL = [
    "\0", "\x07", "\b\b\b\b", "\r5\r", "\x1b[2J\x1b[H", "\x1b[31m", "\x1b[8m", "\x1b]0;title\x07", "\x1b]52;c;eA==\x07",
    "\x1b]8;;http://127.0.0.1:1/\x07x\x1b]8;;\x07", "\x1bP$q\x1b\\", "\x1b[6n", "\x1bc", "\x9b2J", "\x9d0;x\x9c",
    "\x85", "\u2028", "\u202e", "\u2066\u202e\u2069", "\u200b\u200d", "\ufeff", "\ud800", "\udfff\ud800", "\udc80",
    "\ufffe", "\U0010ffff", "\U000e0031\U000e0038", "\u0300", "\u0489", "\u115f", "\u3164", "\x7f", "\x0c\x0b",
    "\x1c\x1d\x1e\x1f", "\u0600",
]  # fmt: skip
# What 18 would look like; True where it is 18 in the characters of another script.
LOOKS: list[tuple[str, bool | None]] = [
    ("１８", True), ("١٨", True), ("१८", True), ("๑๘", True), ("𝟏𝟖", True), ("𝟣𝟪", True), ("1\u200b8", True),
    ("1\u00ad8", True), ("\u202d18\u202c", True), ("\u206618\u2069", True), ("\ufeff18", True), ("l8", False),
    ("I8", False), ("Ꭵ8", False), ("ⅼ8", False), ("Ⅹ8", False), ("ⅩⅧ", False), ("⑱", False), ("⒅", False), ("⓲", False),
    ("¹⁸", False), ("₁₈", None), ("1̸8", False), ("18̶", False), ("1\ufe0f\u20e38\ufe0f\u20e3", False),
    ("\u202e18\u202c0", False), ("\u202e81\u202c", False), ("1З", False), ("1௮", True), ("1੪", False), ("➀⑧", False),
    ("1𐒨", True), ("零18", None), ("18\u20dd", False), ("1\u034f8", False), ("1٫8", False), ("1·8", False),
    ("𝟏𝟖𝟏", False), ("-18", False), ("−18", False), ("﹣18", False), ("18\u0338", False), ("0x12", False),
    ("0b10010", False), ("1e999", False), ("18e0", True), ("1.8e1", True), ("18e-9999", False), ("nan", False),
    ("inf", False), ("1_8", False), ("18j", False), ("True", False), ("0018", True),
    ("18.0000000000000000000000000000000000001", False), ("17." + "9" * 60, False),
]  # fmt: skip
HUGE = [
    "(10^8)!", "(10^6)!!", "10^8!", "9^{9^{9^{9}}}", "2^{2^{2^{2^{2^{2}}}}}", "10^{10^{10}}", "10^{-10^{10}}",
    "9^{99999999}", r"\binom{10^9}{5\cdot10^8}", r"\binom{99999999}{49999999}", r"\sqrt{10^{10^9}}",
    r"\sqrt[99999999]{2}", r"\frac{1}{10^{10^8}}", r"\log(10^{10^9})", r"\sin(10^{10^{9}})", r"\tan(\frac{\pi}{2})",
    r"\arctan(10^{10^{9}})", r"(1+\sqrt{2})^{99999}", "(x+y+z)^{999}", "(x+1)^{9999}-(x+1)^{9998}",
    "x^{x^{x^{x^{x^{x}}}}}", r"e^{e^{e^{e^{e}}}}", r"\infty-\infty", r"\frac{0}{0}", "0^{0}", r"\frac{1}{1-1}",
    r"\log(0)", r"\sqrt{-1}^{\sqrt{-1}}", r"(\sqrt{2}+\sqrt{3}+\sqrt{5}+\sqrt{7}+\sqrt{11})^{40}",
    r"\sin(\sin(\sin(\sin(x))))", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{99999999}",
    r"\begin{pmatrix}1\end{pmatrix}^{-1}!", "170!", "171!", "1000!", "100000!", r"\sum_{n=1}^{10^9} n",
    r"\prod_{n=1}^{10^9} n", r"\int_0^{10^9} x^x dx", r"\lim_{x\to0} \frac1x", "7" * 400, "0." + "1" * 400,
    r"3\sqrt{13}+10^{-10^9}", r"3\sqrt{13}\cdot(10^{6})!^{0}", r"\frac{3\sqrt{13}\cdot(99999)!}{(99999)!}",
    r"3\sqrt{13}^{1^{10^{10}}}",
]  # fmt: skip
# Around a middle, so many times.
NESTS = [
    ("(", "1", ")"), ("{", "1", "}"), ("[", "1", "]"), (r"\{", "1", r"\}"), ("|", "1", "|"),
    (r"\left(", "1", r"\right)"), (r"\frac{1}{", "1", "}"), (r"\frac{", "1", "}{1}"), (r"\sqrt{", "1", "}"),
    (r"\text{", "1", "}"), (r"\boxed{", "1", "}"), ("x^{", "1", "}"), ("x_{", "1", "}"), ("{1\\over", "1", "}"),
    (r"\begin{pmatrix}", "1", r"\end{pmatrix}"), (r"\sin(", "1", ")"), ("-(", "1", ")"), ("(1+", "1", ")"),
    (r"\mathbb{", "1", "}"), ("1!", "!", "!"),
]  # fmt: skip
PIECES = [
    "x", "7", " ", "\n", "\t", "\\", "{", "}", "$", "#", "####", "#### (", "#### 1\n", "-", "-$", "+", "=", "1=",
    "1 = x ", "^", "^ ", "_", "(", ") ", "[", "|", "*", "**", "_1_", "~~", "<", "<<", "<<1", "</", "<a ", "1,", "1,2",
    "1.", "1 ", "1/", "1/2 ", "1e9 ", "1²", "½", "⁹", "日", "是1", "\u200b", "\u202e", "\0", "\ud800", "e\u0301", "🙂",
    "answer is ", "answer is not 5 ", "not 5 ", "is ", "eighteen and ", "one hundred ", "million ", "1 million ",
    "18 to ", "1 x ", "1 and ", r"\boxed", r"\boxed{", r"\boxed{}", r"\boxed x", r"\boxed ", r"\fbox{", r"\\boxed{",
    r"\boxed{1}", r"\frac", r"\frac{", r"\frac{1}", r"\text{", r"\left", r"\\", "<think>", "</think>", "Action:",
    "Action: f\n", "Action Input:", "Action Input: {", 'Action Input: {"', 'Action Input: {"a": 1}\n', '"', '\\"',
    '{"a":', "[[", "}{", "Action Input: {}", "\r", "\r\n", ",", ";", "and ", "or ", "%", "°", "'", "`", "```\n", "&",
    "&nbsp;", "0", "9" * 50 + " ",
]  # fmt: skip
BOXES: list[tuple[str, bool | None]] = [
    (r"\boxed{@", None), (r"\boxed{@}}", True), (r"\boxed{{@}", None), (r"\boxed{@} \boxed{5", True),
    (r"\boxed{5} \boxed{@}", True), (r"\boxed{@} \boxed{5}", False), (r"\boxed{@} or \boxed{5}", False),
    (r"\boxed{\boxed{@}}", True), (r"\boxed{5\boxed{@}}", False), (r"\boxed{@\boxed{5}}", False),
    (r"\boxed{@, 5}", False), (r"\boxed{5, @}", False), (r"\boxed{@ \text{ or } 5}", False), (r"\boxed{not @}", False),
    (r"\boxed{\neq @}", False), (r"\boxed{\sim @ \pm 1}", False), (r"<think>\boxed{@}</think>\boxed{5}", False),
    (r"<think>\boxed{5}</think>\boxed{@}", True), (r"<think>\boxed{@}", False), (r"\boxed{@}<think>\boxed{5}", True),
    (r"</think></think>\boxed{@}", True), (r"\boxed{5}</think>\boxed{@}", True), (r"\boxed{@}</think>5", False),
    (r"\BOXED{@}", None), (r"\boxed(@)", None), (r"boxed{@}", None), (r"\boxed[@]", None), (r"\boxed {@}", True),
    ("\\boxed\n{@}", None), (r"\fbox{@}", True), (r"\boxed@", None), (r"\boxed{@}\0", True), ("\\boxed{@\0}", None),
    ("\0\\boxed{@}", True), ("\\boxed{@\u202e}", True), ("\\boxed{\u202e@}", True), ("\\box\u200bed{@}", None),
    (r"\boxed{%@}", None), (r"\boxed{\phantom{@}5}", False), (r"\boxed{\color{white}{@}5}", False),
    (r"\boxed{@\tag{5}}", None), (r"\boxed{@ % 5}", None), (r"{\boxed{@}", True), (r"$$$$\boxed{@}$$$", True),
    (r"\begin{\boxed{@}}", None), (r"\verb|\boxed{@}|", None), (r"\boxed{@}{5}", True), (r"\boxed{}\boxed{@}", True),
    (r"\boxed{@}\boxed{}", None), (r"\boxed{ }", False), (r"\boxed{\{@\}}", None), (r"\boxed{@ = 5}", None),
    (r"\boxed{5 = @}", None), (r"\boxed{x = @}", True),
]  # fmt: skip
CALLS = [
    ('{"a": 1e999}', False), ('{"a": -1e999}', False), ('{"a": NaN}', False), ('{"a": Infinity}', False),
    ('{"a": -Infinity}', False), ('{"a": 1e-999}', False), ('{"a": 0x1}', False), ('{"a": 01}', False),
    ('{"a": 1.}', False), ('{"a": .5}', False), ('{"a": +1}', False), ('{"a": 1E0}', True), ('{"a": 10e-1}', True),
    ('{"a": 1.0}', True), ('{"a": 1.00000000000000000001}', False), ('{"a": 1e99999999999999999999}', False),
    ('{"a": 1e-99999999999999999999}', False), ('{"a": true}', False), ('{"a": "1"}', False), ('{"a": [1]}', False),
    ('{"a": null}', False), ('{"a": {}}', False), ('{"A": 1}', False), ('{"a": 2, "a": 1}', True),
    ('{"a": 1, "a": 2}', False), ('{"a": 1, "b": 2}', False), ("{}", False), ("[]", False), ("null", False),
    ("1", False), ('"a"', False), ("", False), ('{"a": 1', False), ('{"a": 1,}', False), ("{'a': 1}", False),
    ("{a: 1}", False), ('{"a": 1 /* x */}', False), ('{"a": 1}}', True), ('{{"a": 1}}', False),
    ('\ufeff{"a": 1}', False), ('{"a": 1\0}', False), ('{"a\0": 1}', False), ('{"\\u0061": 1}', True),
    ('{"a\\u0000": 1}', False), ('{"\\ud800": 1}', False), ('{"a": "\\ud800"}', False), ('{"\ud800": 1}', False),
    ('{"__proto__": {"a": 1}}', False), ('{"constructor": {"prototype": {"a": 1}}}', False),
    ('{"__class__": "os.system", "a": 1}', False), ('{"a": 1, "__proto__": {}}', False),
    ('{"py/object": "os.system"}', False), ('{"$ref": "#"}', False), ('{"a": {"$gt": 0}}', False), ('{"а": 1}', False),
    ('{"a\u200b": 1}', False), ('{"a": １}', False), ('{"a": ١}', False), ('{"a": 1} {"a": 2}', True),
    ('{"a": 2}\nAction Input: {"a": 1}', True), ('{"a": 1}\nAction Input: {"a": 2}', False),
    ('{"a": 1}\nAction Input: {"b": 1}', False), ('{"a": 1}\nAction: g', False), ('{"a": 1}\nAction: f', False),
    ('```json\n{"a": 1}\n```', False), ('\n\n{"a": 1}', True), ('{"a": 1}</think>', False),
    ('{"a": 1}<think>{"a": 2}', True),
]  # fmt: skip
NAMES = [
    ("f", True), ("F", False), ("f()", True), ("f.__class__", False), ("__proto__", False), ("constructor", False),
    ("toString", False), ("__init__", False), ("os.system", False), ("f;g", True), ("f-g", False), ("f\u200bg", True),
    ("ｆ", False), ("𝖿", False), ("ғ", False), ("f\0", True), ("\u202ef", False), ("`f`", False), ("**f**", False),
    ('"f"', False), ("[Optional] f", True), ("[Optional][Optional] f", False), ("", False), ("f\nAction: f", False),
    ("../f", False),
]  # fmt: skip
DEPTHS = (31, 32, 33, 100, 1000, 10**5)


def rows() -> Iterator[tuple[Row, bool | None]]:
    """The answers, and of each whether it is right; None where a reader could argue either way."""
    boxed = {"gsm8k": (r"\boxed{", "}"), "math500": (r"\boxed{", "}"), "tooluse": ('Action: f\nAction Input: {"a": "', '"}')}
    for benchmark, gold in GOLDS.items():
        before, after = boxed[benchmark]
        for kind, texts in (("code", CODE), ("control", CONTROL)):
            for text in texts:
                yield Row(benchmark, kind, gold, [(before + text + after, 1)]), False
        for piece in PIECES:
            yield Row(benchmark, "1 MB of one piece", gold, [(piece, 10**6 // len(piece))]), False
            yield Row(benchmark, "a piece up to the limit", gold, [(piece, 99_000 // len(piece))]), False
        right = {"gsm8k": "18", "math500": r"\boxed{3\sqrt{13}}", "tooluse": 'Action: f\nAction Input: {"a": 1}'}[benchmark]
        for piece in ("x", "<think>", r"\boxed{", "Action: g\n", "\0", "\ud800"):
            thought = [("<think>", 1), (piece, 10**6 // len(piece)), ("</think>" + right, 1)]
            yield Row(benchmark, "1 MB of thought", gold, thought), True
        yield Row(benchmark, "empty", gold, [("", 1)]), False
    for benchmark in ("gsm8k", "math500"):
        value, gold = {"gsm8k": "18", "math500": r"3\sqrt{13}"}[benchmark], GOLDS[benchmark]
        for text, right_one in BOXES:
            yield Row(benchmark, "boxes", gold, [(text.replace("@", value), 1)]), right_one
        for text in HUGE:
            yield Row(benchmark, "huge numbers", gold, [(rf"\boxed{{{text}}}", 1)]), None
        for text, is_18 in LOOKS:
            yield Row(benchmark, "characters that look like digits", "18", [(rf"\boxed{{{text}}}", 1)]), is_18
        for opening, middle, closing in NESTS:
            for depth in (20, 10**4):
                parts = [(r"\boxed{", 1), (opening, depth), (middle, 1), (closing, depth), ("}", 1)]
                yield Row(benchmark, "deep nesting", gold, parts), False
    for text, is_18 in LOOKS:
        yield Row("gsm8k", "characters that look like digits", "18", [(f"The answer is {text}", 1)]), is_18
        yield Row("gsm8k", "characters that look like digits", "18", [(f"#### {text}", 1)]), is_18
    gold = GOLDS["tooluse"]
    for text, is_right in CALLS:
        yield Row("tooluse", "calls", gold, [("Action: f\nAction Input: " + text, 1)]), is_right
    for text, is_right in NAMES:
        yield Row("tooluse", "names", gold, [(f'Action: {text}\nAction Input: {{"a": 1}}', 1)]), is_right
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        for depth in DEPTHS:
            parts = [('Action: f\nAction Input: {"a":', 1), (opening, depth), ("1", 1), (closing, depth), ("}", 1)]
            yield Row("tooluse", "deep nesting", gold, parts), False
    for digits in (39, 40, 41, 4300, 4301, 90_000):
        for end in ("", ".0", "e5"):
            yield (
                Row(
                    "tooluse", "huge numbers", gold, [('Action: f\nAction Input: {"a": 1', 1), ("0", digits), (end + "}", 1)]
                ),
                False,
            )


def read() -> list[Row]:
    """The rows of the file, with their verdicts."""
    lines = FILE.read_text(encoding="ascii").splitlines() if FILE.exists() else []
    found = (json.loads(line) for line in lines)
    return [Row(**one | {"parts": [(text, times) for text, times in one["parts"]]}) for one in found]


def asked(everything: bool) -> list[Row]:
    """The rows of the file, or those that are graded at once: of the answers that reach the limit of time, one."""
    one = r"\boxed{(10^8)!}"
    return [row for row in read() if everything or row.answer == one or not (row.verdict == "timeout" or _is_long(row))]


def _is_long(row: Row) -> bool:
    return row.benchmark == "gsm8k" and row.kind == "a piece up to the limit"


def main() -> None:
    """Writes the file: known answers keep their verdicts; new ones get those of the graders, to be looked at in the diff."""
    from qthink_core.benchmarks.graders import grade, latex_equality

    known = {(*row[:2], row.gold, str(row.parts)): row.verdict for row in read()}
    written = []
    for row, right in rows():
        verdict = known.get((*row[:2], row.gold, str(row.parts))) or grade(row.benchmark, row.gold, row.answer).verdict
        if right is not None and (verdict == "right") != right:
            print(f"{row.benchmark}, {row.kind}, {row.answer[:90]!a}: {verdict}, expected {'right' if right else 'another'}")
        written.append(json.dumps(row._replace(verdict=verdict)._asdict()))
    latex_equality.close()
    FILE.write_text("\n".join(written) + "\n", encoding="ascii")
    print(f"{len(written)} answers", file=sys.stderr)


if __name__ == "__main__":
    main()
