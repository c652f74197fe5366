"""One module for each page of a report."""
