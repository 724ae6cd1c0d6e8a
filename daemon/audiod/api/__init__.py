"""HTTP, as OpenAI's audio API: a file for each endpoint family, the routes in app.py, errors in errors.py.

Reaches models only through residency.manager; never touches a process or the control socket.
"""
