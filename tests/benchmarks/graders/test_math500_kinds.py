r"""MATH-500's equality, kind by kind: each line is a gold and the boxes that are right, or wrong, for it."""

import json
from pathlib import Path

import pytest

from qthink_core.benchmarks.graders import grade, latex_equality

CASES = Path(__file__).parents[3] / "../shared/cases/graders/math500.jsonl"

RIGHT = {
    "typefaces, sizes, colours, spacing": r"""
12 ;; \mathbf{12} ;; {\bf 12} ;; \text{12} ;; \mathsf{12} ;; \pmb{12} ;; \Huge{12} ;; \color{blue}{12} ;; \displaystyle 12
12 ;; $12$ ;; \textcolor[rgb]{1,0,0}{12} ;; \[12\] ;; \phantom{0}12 ;; \fbox{12} ;; \;12\, ;; 12. ;; 12; ;; 12 \\ ;; =12
12 ;; +12 ;; 12\quad ;; \mathcal{12} ;; \framebox{12} ;; \boldmath 12 ;; 12\checkmark ;; 12\,\blacksquare ;; \mathstrut 12
\pi r ;; \mathbf{\pi}r ;; \pi\mathrm{r}
\cot x ;; \mathrm{cot}\,x ;; \mathrm{cot}x
x+1 ;; \mathbf{x+1} ;; \mathrm{x+1} ;; \ensuremath{x+1} ;; \underline{x+1}
6-5i ;; 6-5\mathrm{i} ;; 6-5\text{i} ;; 6 - 5 i ;; 6-5\cdot i ;; 6+(-5)i ;; 6-5𝑖 ;; 6-i5 ;; 6.0-5.0i
""",
    "spellings of a fraction and a root": r"""
\frac{1}{2} ;; \frac12 ;; \frac 1 2 ;; \frac1{2} ;; {1\over2} ;; \cfrac{1}{2} ;; .5 ;; 1/2 ;; \frac{-1}{-2} ;; ½ ;; 2^{-1}
-\frac{1}{2} ;; \frac{-1}{2} ;; −1/2 ;; -(1/2) ;; -0.5
3\sqrt{13} ;; 3\sqrt{{13}} ;; 3√13 ;; 3√(13) ;; \sqrt{117}
\frac{\sqrt{3}}{3} ;; \frac1{\sqrt3}
2 ;; ∛8 ;; \sqrt4 ;; sqrt(4) ;; sqrt{4}
4\sqrt2 ;; 4sqrt(2) ;; 4 sqrt{2}
\frac34 ;; \nicefrac{3}{4} ;; \sfrac34
""",
    "Unicode": r"""
625 ;; 5⁴ ;; ６２５ ;; ٦٢٥ ;; 25×25 ;; 25·25
10^{-3} ;; 10⁻³ ;; 1/1000
x_1 ;; x₁
(2,\infty) ;; (2,∞) ;; (2, +\infty)
7\pi ;; 7π ;; \pi\cdot 7 ;; 7pi ;; 7 pi
\theta ;; θ
-18 ;; \text{minus }18 ;; \text{negative 18} ;; −18 ;; –18 ;; -(18) ;; (-18)
""",
    "mixed numbers": r"""
\frac{5}{2} ;; 2\frac12 ;; 2 1/2 ;; 2½ ;; 2\ \frac{1}{2}
-2.5 ;; -2\frac{1}{2} ;; -2½
33\frac{1}{3} ;; 33⅓ ;; \frac{100}{3}
""",
    "separators": r"""
10080 ;; 10,080 ;; 10{,}080 ;; 10,\!080 ;; 10 080 ;; 10\,080 ;; 10~080 ;; 10'080 ;; 10，080 ;; 10٬080 ;; 10080.0
11,\! 111,\! 111,\! 100 ;; 11111111100 ;; 11 111 111 100
1,2 ;; 1, 2 ;; 1、2 ;; 1;2 ;; 2,\quad 1
100,200 ;; 100, 200
""",
    "exact decimals": r"""
\frac13 ;; 0.\overline{3} ;; 0.\bar3 ;; 0.\dot{3} ;; .\overline{33} ;; 0.(3)
\frac16 ;; 0.1\overline{6} ;; 0.1(6)
\frac{x+1}{2} ;; 0.5(x+1)
0.0015 ;; 1.5 \cdot 10^{-3} ;; 1.5×10⁻³ ;; 1.5e-3 ;; 1.5E-3 ;; \frac{3}{2000}
6.02\times10^{23} ;; 602\cdot10^{21}
""",
    "units": r"""
5 ;; 5cm ;; 5\mathrm{~cm} ;; 5\,cm^2 ;; 5\text{ square units} ;; 5\text{ m}^3 ;; 5\frac{\text{km}}{\text{h}}
5 ;; 5\text{ miles per hour} ;; 5° ;; 5^\circ C ;; 5 degrees ;; 5 (cm) ;; 5\text{ (in cm)} ;; 5\text{ ways}
5 ;; 5\text{ red marbles} ;; 5\text{ m} ;; 5\text{ km/h} ;; \$5 ;; \text{\$}5 ;; 5 dollars ;; 5€ ;; 5\cent ;; USD 5 ;; 5\%
5 ;; 5％ ;; 5 percent ;; 5\text{ feet tall} ;; 5\text{ per cent} ;; 5℃ ;; 5 sec ;; 5/\text{hour} ;; \$5/\text{hour}
5 ;; CAD 5 ;; 5 CHF ;; \text{CNY }5 ;; 5\text{ SEK} ;; CAD5 ;; +\$5 ;; 5✓ ;; \sim 5
5 ;; ₩5 ;; 5₽ ;; ₪5 ;; ＄5 ;; ￥5
5 ;; 5\text{-th}
5 ;; 5\text{th} ;; 5^{\text{th}} ;; 5^\text{th} ;; 5th ;; 5"
15\mbox{ cm}^2 ;; 15 ;; 15cm^2 ;; \text{15 cm}^2 ;; 15\text{ sq cm} ;; 15\text{ square centimeters} ;; 15 cm²
864 \mbox{ inches}^2 ;; 864 in^2 ;; 864\text{ sq. in.} ;; 864 square inches
5.4 \text{ cents} ;; 5.4¢ ;; 5.4\text{¢} ;; \text{5.4 cents}
\$18.90 ;; 18.9 ;; 18.90\text{ dollars} ;; ＄18.90 ;; 18.90 USD
\frac{270}7\text{ degrees} ;; \frac{270^\circ}{7} ;; \left(\frac{270}{7}\right)^\circ ;; 38\frac{4}{7}
5 \text{ cm} ;; 5 cm ;; 5\text{ centimetres}
""",
    "number words": r"""
5000000 ;; 5\text{ million} ;; 5 million ;; \$5\text{ million}
5\text{ dozen} ;; 60
500 ;; 5\text{ hundred}
5 ;; \text{five} ;; five
42 ;; forty-two ;; \text{forty-two} ;; \text{forty two}
205 ;; \text{two hundred five}
""",
    "phrases": r"""
0.5 ;; \text{The answer is }.5
5 ;; \text{Answer: }5 ;; \text{The answer is } 5 ;; \text{approximately }5 ;; \approx 5 ;; 5 \text{ cm, approximately}
5 ;; \text{Total cost: }\$5 ;; \text{Ans: }5 ;; \text{Area: } 5\text{ cm}
5 ;; \Rightarrow 5 ;; \implies x=5 ;; \therefore 5 ;; \text{There are }5\text{ ways} ;; \text{There are 5 ways}
\sqrt2 ;; \sqrt{2}\approx1.414 ;; x=\sqrt2\approx 1.41
""",
    "words": r"""
\text{Evelyn} ;; Evelyn ;; \textbf{Evelyn} ;; \text{Evelyn.} ;; evelyn ;; \textsf{ Evelyn }
\text{Evelyn} ;; "Evelyn" ;; \text{“Evelyn.”} ;; ``Evelyn''
\text{(C)} ;; C ;; (C) ;; \mathbf{C} ;; \textbf{(C)}\  ;; \text{C.} ;; \text{Option C} ;; C) ;; \text{C)}
\text{even} ;; Even ;; \textit{even}
\text{11:30 a.m.} ;; 11:30\text{ AM}
""",
    "bases": r"""
4343_6 ;; (4343)_6 ;; {4343}_{6} ;; 4343_{\text{six}} ;; 4343_\text{6} ;; 4343_{(6)} ;; 4343_{\text{base 6}} ;; 4343_6=999
4343_6 ;; 4343 ;; 4343\text{ in base }6 ;; 4343\text{ (base 6)}
""",
    "equations": r"""
5 ;; x=5 ;; 5=x ;; f(2)=5 ;; a_5 = 5 ;; \text{Area}=5 ;; \text{Area of }ABC=5 ;; a+b=5 ;; x = \frac{10}{2} = 5 ;; 2+3=5
y=2x+3 ;; y=3+2x ;; 2x+3 ;; y-2x=3 ;; 2y=4x+6
x=5 ;; 5 ;; x=5.0
""",
    "lists, sets, points": r"""
1,-2 ;; -2,1 ;; \{1,-2\} ;; 1 and -2 ;; x=1\text{ or }x=-2 ;; x\in\{1,-2\} ;; x=1\lor x=-2 ;; x=1 \vee x=-2 ;; 1\&-2
3, 5, 7 ;; (3,5,7) ;; 7,5,3
3 \pm 2\sqrt{2} ;; 3-2\sqrt2, 3+2\sqrt2 ;; 3∓2√2 ;; x=3\pm\sqrt{8}
\{1\pm\sqrt{5},-2\} ;; -2,1-\sqrt5,1+\sqrt5
(15,-29) ;; (x,y)=(15,-29) ;; x=15, y=-29 ;; \langle 15,-29\rangle
(1,2),(3,4) ;; (3,4), (1,2)
19, 46, \text{ and } 82 ;; 82, 46 and 19
\emptyset ;; \varnothing ;; ∅ ;; \{\}
0 ;; \{0\}
""",
    "intervals and inequalities": r"""
0<x<5 ;; 5>x>0 ;; x\in(0,5) ;; 0<x \text{ and } x<5 ;; (0,5)
x \ge 3 ;; 3 \le x ;; x\geqslant 3 ;; [3,\infty)
(-\infty, 2) \cup (3, \infty) ;; (3,\infty)\cup(-\infty,2) ;; x<2\text{ or }x>3 ;; (-\infty,2)\text{ or }(3,\infty)
100<x<200 ;; (100,200)
x\ne 3 ;; x\not=3
x \in [-2,7] ;; -2\le x\le7 ;; [-2,7]
""",
    "matrices": r"""
\begin{pmatrix}1\\2\end{pmatrix} ;; \begin{bmatrix}1\\2\\\end{bmatrix}
\begin{pmatrix}1\\2\end{pmatrix} ;; \left(\begin{smallmatrix}1\\[2pt]2\end{smallmatrix}\right)
\begin{pmatrix}1\\2\end{pmatrix} ;; \left[\begin{array}{c}1\cr2\end{array}\right] ;; \begin{pmatrix}1.0\\2.0\end{pmatrix}
\begin{pmatrix}1\\2\end{pmatrix} ;; \begin{pmatrix}1\tabularnewline 2\end{pmatrix}
""",
    "expressions": r"""
(a+5)(b+2) ;; ab+2a+5b+10
\cot x ;; \frac{1}{\tan x}
e^{16}-1 ;; \exp(16)-1
7! ;; 5040
3R^2 ;; 3R² ;; 3 R R
\frac12 ;; \sin 30^\circ
3 ;; \log_2 8 ;; |{-3}|
""",
    "further spellings": r"""
\left( 3, \frac{\pi}{2} \right) ;; (3, \pi/2)
\frac{14}{3} ;; \dfrac{14}{3}
\frac43 ;; \frac{4}{3}
\frac{1}{2} ;; 0.5 ;; \frac{1}{2}\ 
10,\!080 ;; 10080
\$32,\!348 ;; 32348
58,500 ;; 58{,}500
.35625 ;; 0.356250
90^\circ ;; 90 ;; 90°
1,-2 ;; -2, 1
2,3 ;; 2 \text{ and } 3 ;; x=2 \text{ or } x=3 ;; \{2,3\} ;; 2; 3 ;; x \in \{2,3\} ;; 2 and 3
3,5,7 ;; 3, 5, \text{ and } 7
12 ;; a+b=12
1011_2 ;; 11=1011_2
(1,2) ;; (x,y)=(1,2) ;; x=1, y=2
[1,2] ;; x \in [1,2]
x \in [1,2] ;; [1,2]
2,300 ;; 2300
10,000 \text{ dollars} ;; 10000
2 ;; \sqrt{4}
1 \pm \sqrt{19} ;; 1-\sqrt{19}, 1+\sqrt{19}
52_8 ;; 52_{8}
137 \frac{1}{2} ;; \frac{275}{2}
5.4 \text{ cents} ;; 5.4
6 - 5i ;; -5i + 6
\frac{1}{3} ;; 0.\overline{3}
\frac{7}{6} ;; 1.1\overline{6}
.0000672 ;; 6.72 \times 10^{-5}
10 ;; 10\% ;; 10% ;; １０ ;; \textcolor{red}{10} ;; \boldsymbol{10} ;; \approx 10 ;; ~10​
33\frac{1}{3} ;; 33\frac{1}{3}\%
(2, \infty) ;; (2,∞)
-5 ;; –5
(3, \frac{\pi}{2}) ;; \bigl(3, \tfrac{\pi}{2}\bigr)
\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix} ;; \begin{pmatrix} -\frac{1}{3} \\ \frac{2}{3} \end{pmatrix}
""",
}
WRONG = {
    "Unicode": r"""
3 ;; 3½ ;; √3 ;; ∛3 ;; ±3 ;; ≥3 ;; 3⁴ ;; 3′ ;; ∑3 ;; 3‰ ;; 3↉ ;; ③ ;; 三 ;; 3年 ;; 3→4 ;; 3… ;; -(3) ;; Δ3
""",
    "signs that are dropped or misread": r"""
5 ;; 5! ;; 5!! ;; \overline{5} ;; \hat{5} ;; \not5 ;; 5' ;; [5] ;; 5_7 ;; 5:1 ;; 5\mid 6 ;; 5\\6 ;; 5\ldots
5 ;; --5 ;; \text{minus: }5 ;; \text{not: }5 ;; 5\pmod 7 ;; \cancel{5}6
7 ;; 3(4)
57 ;; 5⁢7 ;; 5°7 ;; 5^\circ 7 ;; 5^\circ\,7'
2.5 ;; 2(1/2) ;; 2\frac{3}{2}\frac12
x_1 ;; x ;; x_2
F_{n-1} ;; F_{n-2}
f' ;; f
a ;; A ;; a'
20 ;; 2^10
6 ;; \sqrt16
4 ;; \sqrt16
i ;; I
1/2x ;; \frac{1}{2x}
1 ;; 5^0 1
""",
    "digits that are not one number": r"""
12 ;; 1 2 ;; 1, 2 ;; 1\,2
1.5 ;; 1,5
1234 ;; 12 34 ;; 1,2,3,4 ;; 1, 234 ;; \{1,234\} ;; (1,234)
\{1,234\} ;; \{1234\}
(1,234) ;; (1234)
56 ;; 5\square 6 ;; 5\checkmark6 ;; 5\Rightarrow 6
1000 ;; 1.000
2 ;; 2 2/3
2 ;; 2st ;; 2nd x
3.5 ;; 2\frac{3}{2}
3 ;; 2\frac32
""",
    "near values": r"""
0 ;; 10^{-20} ;; e^{-100}
10^{-20} ;; 10^{-21} ;; 2\cdot10^{-20}
1-10^{-14} ;; 1
e^{-50} ;; e^{-51}
\frac{1}{2004!} ;; \frac{1}{2006!}
\frac{1}{2^{99}} ;; \frac{1}{2^{98}}
\sqrt{2} ;; 1.41421356237309504880 ;; \sqrt{2+10^{-30}}
\pi ;; 3.14159265358979
\frac{2^2}{3} ;; 1.3333333333333333
(\frac13,1) ;; (0.3333333333333333,1)
\frac13 ;; 0.333\ldots ;; 0.3333333333333333 ;; \frac{0.3333333333333333}{1}
x ;; 1.00000000000000000001x
\begin{pmatrix}1\\10^{-20}\end{pmatrix} ;; \begin{pmatrix}1\\10^{-21}\end{pmatrix}
""",
    "words that change a number": r"""
5 ;; 5\text{ dozen} ;; 5\text{ million} ;; 5 hundred ;; 5\text{ thirds} ;; 5\text{ squared} ;; 5\text{ to }6
5 ;; \text{not }5 ;; 5\text{ is wrong} ;; \text{at least }5 ;; \text{minus }5 ;; 5\text{ more} ;; 5\text{ ths}
5 ;; \text{isn't } 5 ;; 5\text{ and a half} ;; \text{The answer is not }5 ;; 5x ;; 5\text{x} ;; 5i ;; 5e ;; 5k ;; 5 abcs
5 ;; B5 ;; \text{five sixths} ;; 5\text{ base }7 ;; 5\text{ hours }30\text{ minutes}
2k ;; 2km
2km ;; 2
""",
    "units that differ": r"""
15\mbox{ cm}^2 ;; 15 cm^3 ;; 15\text{ cm} ;; 15\text{ m}^2
5.4 \text{ cents} ;; \$5.4 ;; ₩5.4 ;; CAD 5.4
\$6 ;; CAD 6 ;; 6 EUR
90^\circ ;; 90\text{ radians}
5 ;; \$5\text{ cents}
15\% ;; 15\text{ cm}
0.5 ;; 50\%
\frac{\pi}{6} ;; 30^\circ
""",
    "words": r"""
\text{Evelyn} ;; \text{not Evelyn} ;; nylevE ;; \text{Evelyn or Navin} ;; -(\text{Evelyn})
\text{odd} ;; ddo ;; odod
\text{(C)} ;; D ;; 2C ;; C,D ;; \text{not C} ;; C' ;; -C ;; C)D
\text{11:30 a.m.} ;; 11:30\text{ p.m.} ;; 11:30
3:2 ;; 2:3 ;; 1.5
\text{A and B} ;; \text{A or B}
""",
    "bases": r"""
4343_6 ;; 4343_7 ;; 999 ;; 4343_6=1000 ;; 4343_{66}
52 ;; 52_8
42 ;; 52_8
""",
    "equations": r"""
5 ;; 2x=5 ;; x^2=5 ;; x+1=5 ;; |x|=5 ;; x=5=6 ;; 5=6 ;; x\ne5 ;; x>5 ;; x\approx 5.1 ;; 4.9\approx5
x=5 ;; y=5 ;; x=6
3x-y+13=0 ;; 3x+4y+14=0 ;; 0 ;; 3x-y+13
0=1 ;; 0=2
0 ;; x+y=0
5 ;; 5=\sin 30 ;; \sin30=5
x+1=x ;; x+2=x ;; y=y+2
x^2-1 ;; y^2-1 ;; x^2-1=0
F_n = F_{n-1}+F_{n-2} ;; F_n = F_{n-1}+F_{n-3}
""",
    "lists, sets, points": r"""
1,2 ;; 1 ;; 1,2,2 ;; 1,2,3 ;; 1 2 ;; 1.2 ;; (2,1) ;; [1,2]
1,2,2 ;; 1,2
1,2 ;; (1,2)
3, 5, 7 ;; (3,7,5) ;; [3,5,7]
(1,2) ;; (2,1) ;; 1,2 ;; \{1,2\} ;; [1,2] ;; (1,2] ;; y=1, x=3 ;; (1,2,3) ;; \begin{pmatrix}1\\2\end{pmatrix}
\pm 3 ;; 3 ;; 3,-2
2,\sqrt2 ;; 2,\sqrt3
""",
    "intervals and inequalities": r"""
0<x<5 ;; 0\le x<5 ;; 0<y<5 ;; [0,5] ;; x<5 ;; x<0\text{ or }x>5
(2,\infty) ;; (2,\infty] ;; [2,\infty) ;; x\ge2 ;; 2
x>3 ;; x<3 ;; y>3 ;; 3 ;; 2x>7
(-\infty, 2) \cup (3, \infty) ;; (-\infty, 2) \cap (3, \infty) ;; x<2\text{ and }x>3 ;; (-\infty,2)\text{ and }(3,\infty)
\infty ;; -\infty ;; \infty+1
""",
    "matrices": r"""
\begin{pmatrix}1&2\\3&4\end{pmatrix} ;; \begin{vmatrix}1&2\\3&4\end{vmatrix} ;; \begin{pmatrix}1&3\\2&4\end{pmatrix} ;; -2
""",
    "further values": r"""
3\sqrt{13} ;; 3
2 ;; 1, 2 ;; 2 or 3 ;; 1=2
1,-2 ;; -2
p - q ;; q - p
52_8 ;; 52_9 ;; 52_{81}
.0000672 ;; .0000673 ;; 6.73 \times 10^{-5} ;; \frac{673}{10000000}
(3,4] ;; [3,4]
\text{even} ;; \text{odd}
\frac{1}{3} ;; 0.333 ;; 0.3333333333333333 ;; 3\overline{3}
\frac{1}{2} ;; 0.5000001 ;; \frac{1}{0} ;; 50\%
10 ;; 10.00000000000000000001
\begin{pmatrix} 1 \\ 2 \end{pmatrix} ;; \begin{pmatrix} 2 \\ 1 \end{pmatrix}
2,3 ;; 2,3,3
\{2,3\} ;; \{2,3,3\}
(1,2),(3,4) ;; (1,2),(3,4),(3,4)
5 ;; 5,5 ;; x=3=5
204_5 ;; 204_5, 204_5
\sqrt{2} ;; 1=\sqrt{2}
1011_2 ;; 12=1011_2
\frac{\pi}{2} ;; 1.570796
\frac{\pi}{2}, 1 ;; 1.570796, 1
\frac 34 ;; \frac 304
""",
}


@pytest.fixture
def worker():
    """Its processor time is counted when it ends."""
    yield
    latex_equality.close()


def verdicts(table: str) -> dict[tuple[str, str], str]:
    lines = [line.split(" ;; ") for line in table.strip().splitlines()]
    return {
        (gold, box): grade("math500", gold, rf"So $\boxed{{{box}}}$.").verdict for gold, *boxes in lines for box in boxes
    }


@pytest.mark.parametrize("kind", RIGHT)
def test_another_spelling_of_the_gold_is_right(kind):
    assert {one: found for one, found in verdicts(RIGHT[kind]).items() if found != "right"} == {}


@pytest.mark.parametrize("kind", WRONG)
def test_another_value_than_the_gold_is_not_right(kind):
    assert {one: found for one, found in verdicts(WRONG[kind]).items() if found == "right"} == {}


@pytest.mark.slow
@pytest.mark.skipif(not CASES.is_file(), reason="the cases of public bug reports are not on this machine")
def test_the_cases_from_public_bug_reports_have_their_verdicts(worker):
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    found = [(grade("math500", case["gold"], case["answer"]).verdict == "right", case) for case in cases]
    assert len(cases) > 400
    assert [case for right, case in found if right != (case["verdict"] == "right")] == []
