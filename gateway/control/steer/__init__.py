"""What moves routes: what is known of each is handed to its policy; what that decides is stored, told and published.

Rule: nothing here decides. A policy is pure; what it returns is written in one transaction, fenced, and then published.
"""
