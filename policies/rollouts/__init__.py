"""What moves by itself, or by hand: standings, and the ladder of a rollout.

Rule: pure. The time is an argument; what happened is returned, and the caller stores it.
"""
