"""Files in bulk: labels into the journal, predictions with their outcomes out of the store, and backups.

Rule: memory is bounded, whatever the size of the file. An import that was interrupted continues where it stopped, and
importing a row twice has the effect of importing it once.
"""
