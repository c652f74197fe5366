"""Classification accuracy score: a classifier trained on samples, tested on real images."""
