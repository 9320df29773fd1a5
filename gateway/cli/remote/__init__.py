"""Commands that ask the admin port of a running gateway."""
