"""What the operator's file sets, table by table, as the values that every process goes by."""
