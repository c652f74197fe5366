"""One script per table or figure of the paper, and the engine that runs their grids."""
