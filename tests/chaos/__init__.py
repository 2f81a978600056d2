"""The run of faults: what it promises about itself."""
