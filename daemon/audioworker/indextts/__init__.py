"""IndexTTS2 without its own program: its networks (checkpoint.py), what each phase computes with them (phases.py), and
what its emotions are in numbers (emotions.py). Knows no jobs, no staging and no files but a checkpoint's."""
