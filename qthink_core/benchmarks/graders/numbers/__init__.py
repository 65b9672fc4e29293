"""The number that a text states: its plain spelling, the grammar of one number, and what its surroundings make of it.

What is written as one number has a value: `1,234`, `3½`, `5 million`, `-(18)`, `1.5 × 10^3`. What must be computed or
interpreted has none: `√16`, `2⁴`, `18k`, `20 - 2`, `18 to 20`, `≥18`. Where a spelling has two readings, it has no value, so
that no answer is right by accident.
"""
