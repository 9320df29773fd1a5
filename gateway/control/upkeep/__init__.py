"""Upkeep of what is stored: what goes by its age, what is erased on request, and room on a full disk."""
