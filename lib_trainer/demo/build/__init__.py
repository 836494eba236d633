"""How the embedded model was made; nothing else needs these modules."""
