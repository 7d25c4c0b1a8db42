"""From files to hidden states: checkpoints, tokens, batches, networks, and the engine."""
