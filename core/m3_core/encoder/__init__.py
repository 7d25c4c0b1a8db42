"""Texts to the three representations, and who shares them."""
