"""Triggers: what they read, where they stand in the store, what follows when one fires, and what it would have done."""
