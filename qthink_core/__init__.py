"""The implementation of QThink, in the terms of the method: rollouts, hidden states, teachers, latent steps, answers."""
