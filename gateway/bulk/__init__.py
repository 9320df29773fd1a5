"""Much at once: labels from files into the journal, and predictions with their outcomes out of the store.

Rule: bounded memory, whatever the size; what is interrupted goes on where it stood, and twice is as good as once.
"""
