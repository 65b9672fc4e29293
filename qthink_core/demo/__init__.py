"""`qthink demo`: the whole graph on all cores, and the comparison with the committed results."""
