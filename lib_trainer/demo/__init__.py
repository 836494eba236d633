"""A small model of our own with a drawn world, on which training can be tried in minutes on a CPU."""
