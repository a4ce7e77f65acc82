"""Vacations that people select and sign off."""
