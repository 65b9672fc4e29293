"""A trained model in use: answers to anyone's questions, evaluation and audit of a checkpoint."""
