"""The ground: errors, files, signals, processes; knows nothing of video."""
