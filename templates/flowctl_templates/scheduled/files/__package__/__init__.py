"""Reports, every morning."""
