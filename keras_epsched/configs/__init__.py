"""What runs are made of: plain values with roles, and recipes for them."""
