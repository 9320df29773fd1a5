"""Files that the operator or the gateway keeps: who may read them, how they are opened, and what each holds."""
