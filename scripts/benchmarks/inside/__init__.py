"""Programs that the measures run elsewhere: in an engine's runtime, or in audiod's own environment."""
