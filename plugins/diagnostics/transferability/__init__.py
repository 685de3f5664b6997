"""Transferability: scores of a source network on a target task, computed without fine-tuning."""
