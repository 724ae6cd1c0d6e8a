"""IndexTTS2 and IndexTTS-2.5 without their own programs. What is the same is in a file of its own: jobs (speaker.py),
networks out of a checkpoint (checkpoint.py), what each phase computes with them (phases.py), how a text becomes parts
of tokens (front.py), what emotions are in numbers (emotions.py). What is not ends in 2 or 25."""
