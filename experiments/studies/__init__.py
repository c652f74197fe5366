"""Studies: experiments whose cells are something else than a grid of the sampler's settings."""
