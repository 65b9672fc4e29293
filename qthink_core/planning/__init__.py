"""Planning a run: costs, time and memory, and whether this machine has what the run needs."""
