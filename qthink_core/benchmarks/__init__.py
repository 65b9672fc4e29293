"""The benchmarks: prompts, problems from their sources, graders, and generated problems of the same form."""
