"""Untrusted audio in, speech out: uploads become 16 kHz PCM, PCM becomes mp3, opus, aac, flac, wav or pcm.

decoder.py, encoder.py and filters.py import av; only process.py imports them, and it runs in processes of its own,
because decoders crash and hang. The daemon's side is upload.py and pool.py.
"""
