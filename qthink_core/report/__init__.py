"""The report: table, page, files and plots of what a run found."""
