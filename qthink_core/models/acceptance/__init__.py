"""Which models are accepted as they come, what is changed in their files, and which are refused and why (docs/models.md)."""
