"""Packs: sequences one after another without padding; no token is read twice."""
