"""The JSON API: one blueprint a subject."""
