"""The method: positions, hidden states, teachers, projection head, latent steps, losses, targets, student."""
