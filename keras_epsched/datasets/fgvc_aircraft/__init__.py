"""The `fgvc_aircraft` dataset: 100 variants of aircraft, to download."""
