"""Our metrics beside those of other libraries on the same input."""
