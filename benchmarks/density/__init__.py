"""The density benchmark of arXiv 2603.26611, on the sets of it that are at hand."""
