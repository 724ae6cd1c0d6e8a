"""The virtual environments that engines' libraries live in; nothing here imports one of those libraries."""
