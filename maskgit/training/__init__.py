"""Training of both stages: `python -m maskgit.training tokenizer|tokenize|transformer`."""
