"""One run: its settings, its loop, its state, and how it is followed and stopped."""
