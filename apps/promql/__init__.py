"""Arithmetic on series: a PromQL engine in numpy that knows no Django, no SQL and no clock."""
