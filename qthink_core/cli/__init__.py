"""The `qthink` program: one module for each group of commands."""
