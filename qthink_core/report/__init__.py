"""The report on the findings of a run: table, page, files for programs, and plots."""
