"""The wiring: settings, URLs, ASGI, Celery and the processes. It decides nothing."""
