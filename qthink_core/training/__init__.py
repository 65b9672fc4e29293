"""From rollouts and teachers to an adapter and a projection head."""
