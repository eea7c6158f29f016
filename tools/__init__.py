"""One command a data step, and commands to look at things."""
