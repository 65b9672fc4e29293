"""Model folders: where a base model comes from, what is checked, loading, pre-training, export."""
