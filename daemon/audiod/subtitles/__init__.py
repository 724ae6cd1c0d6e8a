"""Subtitles out of a transcript: when each character is said, what goes on which line, what makes a cue, SRT and VTT.

Pure: no I/O, no clock, no knowledge of engines or of HTTP.
"""
