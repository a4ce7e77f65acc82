"""The flowctl command line."""
