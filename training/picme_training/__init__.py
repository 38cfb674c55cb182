"""Training of PICME: networks, losses, masks, data, the loop and its checkpoints."""
