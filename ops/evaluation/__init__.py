"""One test."""
