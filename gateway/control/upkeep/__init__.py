"""Upkeep of what is stored: what is removed by its age, what is erased on request, and room on a full disk."""
