"""The HTML console."""
