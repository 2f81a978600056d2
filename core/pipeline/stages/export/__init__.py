"""Export of a verified artifact's weights in another form."""
