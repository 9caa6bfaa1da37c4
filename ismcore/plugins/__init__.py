"""How backends and other plugins are found, chosen and asked."""
