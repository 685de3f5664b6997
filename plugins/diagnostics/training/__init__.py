"""Training: how far and how fast trials learnt, and what pre-training added."""
