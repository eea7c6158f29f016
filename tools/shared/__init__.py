"""What the commands of tools/ share."""
