"""How the network computes."""
