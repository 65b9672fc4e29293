"""In the place of a package that must not be imported."""

raise SystemExit("a grader imported a package on which verdicts would depend")
