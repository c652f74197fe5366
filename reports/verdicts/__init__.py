"""Every rule that turns numbers into a verdict on a claim of the paper."""
