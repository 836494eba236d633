def visible_sampler_names():
    return ["Euler", "Euler a"]
