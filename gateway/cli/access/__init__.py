"""Commands about who may, and who did what."""
