"""A small drawn world of anime-style characters with complete labels, which the embedded model learns."""
