"""What is counted: tallies, the ledgers made of them, and the state that says what is counted under which rules."""
