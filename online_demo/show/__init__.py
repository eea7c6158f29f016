"""Where results go on this machine: a window, a video file, lines of JSON."""
