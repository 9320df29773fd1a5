"""One request, from the decision to its rows in the journal and its answer."""
