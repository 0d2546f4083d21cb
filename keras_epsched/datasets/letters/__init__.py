"""The `letters` dataset: 32 x 32 rendered letters, offline."""
