"""The bench of honesty: how often each kind of verdict is wrong, and how often it finds what is there.

Rule: only the traffic is simulated. Whatever decides is the product's own function, called on tallies as the store has
them. Every experiment is seeded by its name, so that the same commit prints the same table.
"""
