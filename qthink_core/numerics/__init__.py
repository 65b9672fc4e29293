"""How a pass through a model is computed on this processor; what it gives does not change but for rounding."""
