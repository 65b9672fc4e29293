"""One page per stage of the graph: its parameters, what it reads, what it writes, one call into `qthink_core`."""
