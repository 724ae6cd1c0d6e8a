"""The daemon: asyncio and aiohttp; never imports torch or any engine's library."""
