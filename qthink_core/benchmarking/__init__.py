"""Benchmarking: what the method's own code costs against plain transformers code that gives the same result."""
