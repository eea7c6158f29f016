"""From a line of a list to a batch."""
