"""Where the pictures come from."""
