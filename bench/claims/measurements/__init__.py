"""What each claim measures for one seed: `measure(seed, setting, record)`, a file each, named as the claim's rule."""
