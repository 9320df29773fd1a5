"""What is known of units beside their sums: in which of a few buckets they are, and who they are where they are few."""
