"""The LaTeX commands that change how an answer looks and not what it says, the same for every grader."""


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# Their argument is words in upright type.
UPRIGHT = names(
    "text mbox hbox textbf textit textrm textsf texttt textsc textsl textnormal textup textmd emph mathrm operatorname"
)
TYPEFACES = names(
    "mathbf mathit mathsf mathtt mathnormal mathcal mathfrak mathscr boldsymbol bold bm pmb underline ensuremath mathop "
    "mathord mathbin mathrel mathpunct smash framebox"
)
# Without an argument.
SWITCHES = names(
    "displaystyle textstyle scriptstyle limits nolimits bf it rm sf tt sl sc em bfseries itshape boldmath big Big bigg Bigg "
    "bigl Bigl biggl Biggl bigr Bigr biggr Biggr bigm tiny scriptsize footnotesize small normalsize large Large LARGE huge "
    "Huge centering noindent hline nonumber notag strut mathstrut"
)
SPACES = names("quad qquad thinspace enspace medspace thickspace negthinspace space hfill nobreakspace nobreak")
# At the end of an answer or of a proof.
MARKS = names("checkmark square blacksquare bigstar Box qed")
HENCE = names("therefore to rightarrow longrightarrow Rightarrow Longrightarrow implies iff")
WITHOUT_OUTPUT = names("color label tag phantom hphantom vphantom hspace mspace vspace")
COLOURED = names("textcolor colorbox")
FRACTIONS = names("frac dfrac tfrac cfrac nicefrac sfrac")
