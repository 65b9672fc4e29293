"""What a run takes: costs, time, memory, and whether this machine has it."""
