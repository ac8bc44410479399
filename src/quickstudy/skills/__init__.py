"""The skills that a robot can learn: one family of tasks a file."""
