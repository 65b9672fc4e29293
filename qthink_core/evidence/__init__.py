"""What the answers show: scores, statistics, power, verdicts on the latents, the claims of the paper."""
