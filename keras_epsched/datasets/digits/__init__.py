"""The `digits` dataset: 8 x 8 handwritten digits, offline."""
