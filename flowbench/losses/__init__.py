"""Losses that stand on pretrained networks, and losses that are learned."""
