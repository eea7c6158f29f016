"""The speed tables of the README, one module each."""
