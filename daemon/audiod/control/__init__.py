"""The Unix socket that `audioctl` speaks to: server.py decodes and checks permission, handlers.py answers.

Reaches models only through residency.manager; never speaks to the network.
"""
