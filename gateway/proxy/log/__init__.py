"""What a worker writes down: the rows of predictions into the journal, counters of what it dropped or refused."""
