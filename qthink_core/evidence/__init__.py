"""Evidence from the answers: scores, statistics, power, verdicts on the latents, the claims of the paper."""
