"""`flowctl dev`: a supervisor, a warm process that forks workers, and what runs in those."""
