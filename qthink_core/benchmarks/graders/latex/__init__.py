"""How the grader of MATH-500 reads a LaTeX expression: its spelling, words, numbers and values."""
