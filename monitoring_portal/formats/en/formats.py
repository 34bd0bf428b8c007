"""Dates in the admin as on the pages: nobody reads "a.m." right at night."""

DATE_FORMAT = "j M Y"
TIME_FORMAT = "H:i:s"
DATETIME_FORMAT = "j M Y H:i:s"
