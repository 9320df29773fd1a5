"""What people, and programs for them, have done to routes: one function performs it, whoever asks."""
