"""Model folders: sources of a base model, checks, loading, pre-training, export."""
