"""The `stanford_cars` dataset: 196 models of cars, from your files."""
