"""Logs: records that come in by several protocols, are sorted under templates, kept for a while and looked through.

`records`, `formats`, `masking`, `templates` and `columns` are pure; `services` writes, `search` reads, `api` is the
door; `own` is the portal's own. What goes into other Django projects is `apps.metrics.client.logs`.
"""
