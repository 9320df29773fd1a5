"""How long a comparison takes. Loads numpy and scipy."""
