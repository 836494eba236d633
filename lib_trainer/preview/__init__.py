"""Grids of pictures that compare strengths, saved steps or two LoRAs: asked for, drawn, labelled, chosen from."""
