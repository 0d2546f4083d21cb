"""The `caltech256` dataset: objects of 257 categories, to download."""
