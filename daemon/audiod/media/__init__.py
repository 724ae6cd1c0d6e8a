"""Untrusted audio in, speech out: uploads and live audio become 16 kHz PCM, PCM becomes mp3, opus, aac, flac or wav.

decoder.py, encoder.py, filters.py and hearing.py import av, vad.py a library with a model; only process.py imports
them, and it runs in processes of its own, because decoders crash and hang. The daemon's side is upload.py and pool.py.
"""
