"""Records that a killed job goes on from: one store for every stage, and one fingerprint of what they depend on.

A record is taken only where its fingerprint is that of the job, and every byte is as it was written.
"""
