"""Training: an adapter and a projection head from rollouts and teachers."""
