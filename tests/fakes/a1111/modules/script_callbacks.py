_model_loaded = []


def on_model_loaded(callback):
    _model_loaded.append(callback)


def model_loaded_callback(sd_model):
    for callback in _model_loaded:
        callback(sd_model)
