"""One file per feature extractor; `eval.features` is the registry that loads them by name."""
