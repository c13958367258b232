"""The training half: batches, losses, the loop and its checkpoints."""
