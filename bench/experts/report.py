def page(bench):
    return ""
