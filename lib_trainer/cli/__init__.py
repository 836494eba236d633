"""The command line: `python -m lib_trainer demo | train | grid | inspect | ui`, on the standalone host."""
