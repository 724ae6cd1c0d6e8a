"""What scripts/bench measures. Each measure is a function that returns figures; those of a kind are one module.

Needs nothing but the standard library. What has to run in an engine's runtime, or in audiod's own environment, is in
`inside` and run there as a program of its own.
"""
