"""Where results go over the network: a page for browsers."""
