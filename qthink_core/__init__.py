"""The nouns of the paper: rollouts, think positions, hidden states, teachers, latent steps, losses, answers."""
