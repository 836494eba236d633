data_path = ""
"""The fixture names a folder of its own."""
