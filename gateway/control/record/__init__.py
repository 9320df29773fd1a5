"""From the journal into the store: read lines, record them, set aside what cannot be recorded."""
