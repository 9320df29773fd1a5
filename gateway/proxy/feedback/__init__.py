"""The gateway's own paths on the data port, and the validation of feedback events."""
