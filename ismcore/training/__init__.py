"""One run: its settings, its loop, its books, and how it is followed and stopped."""
