"""Files of the operator and of the gateway: their access rights, how they are opened, and what each contains."""
