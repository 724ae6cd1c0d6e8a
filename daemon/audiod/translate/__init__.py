"""Translation by a language model: cues.py says what is asked and reads what comes back, chat.py speaks to it.

Knows nothing of audio, models or requests.
"""
