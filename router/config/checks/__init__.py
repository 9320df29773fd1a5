"""Checks of settings together: of the file, of a route, and of what a route compares."""
