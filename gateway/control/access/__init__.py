"""Who may: named tokens, as the controller makes, revokes and spreads them."""
