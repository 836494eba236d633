data_path = ""
"""The fixture names a folder of its own."""
roboto_ttf_file = "Roboto-Regular.ttf"
