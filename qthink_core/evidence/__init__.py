"""Evidence from the answers: scores, statistics, power, verdicts on the latents, and the claims of the model card."""
