"""`qthink run`: the whole graph made on all cores, and a comparison with the committed results."""
