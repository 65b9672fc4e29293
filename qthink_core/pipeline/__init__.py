"""What runs a stage: its parameters, its place in the graph, its process, its executor."""
