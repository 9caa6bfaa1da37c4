"""Faulty backends, each of which a named check of the conformance kit must catch."""
