"""The journal: append-only segments of sealed lines, written by workers and read by the controller."""
