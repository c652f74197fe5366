"""The networks: tokenizer, transformer, and the arithmetic they stand on."""
