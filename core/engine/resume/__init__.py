"""Records from which a killed job resumes: one store for every stage, and one fingerprint of the record's inputs.

A record is used only if its fingerprint is the job's, and every byte is as it was written.
"""
