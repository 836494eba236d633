using_stream = False
