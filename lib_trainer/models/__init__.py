"""What an open model is, whichever host opened it: its data types, layers, memory placement and trainability."""
