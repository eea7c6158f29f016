"""Where published scripts import main.py's parser from: `from opts import parser`."""

from ops.opts import parser

__all__ = ["parser"]
