"""The implementation of QThink, in the terms of the paper: rollouts, hidden states, teachers, latent steps, answers."""
