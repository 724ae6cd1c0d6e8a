"""WS /v1/realtime: audio in as it is spoken, transcripts out, in the events of OpenAI's Realtime API (GA).

events.py and sessions.py are the wire, machine.py decides (pure), buffer.py keeps the audio, handler.py does the work.
live_turn.py (pure) and hearings.py are turns that are heard while they are spoken. secrets.py has the ephemeral keys.
A conversation session will be a second machine behind the same handler.
"""
