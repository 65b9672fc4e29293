"""`qthink demo`: the whole graph at once on all cores, and the comparison with the committed results."""
