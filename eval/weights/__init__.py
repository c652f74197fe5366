"""Where the weights of feature networks come from."""
