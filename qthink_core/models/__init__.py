"""Model folders: the sources of a base model, its checks and pre-training, loading and export."""
