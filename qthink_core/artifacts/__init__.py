"""What lies on disk between stages: the store that every stage writes through, and a module for each kind of artifact."""
