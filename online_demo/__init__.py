"""Live gesture recognition with the online TSM."""
