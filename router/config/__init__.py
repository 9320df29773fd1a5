"""The operator's file: its tables, how it is read, and every problem in it."""
