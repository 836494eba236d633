"""What a person can set, and how it is checked."""
