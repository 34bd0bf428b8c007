"""Half of each page of series is left free, so that noting when they last spoke changes no index and adds no page.

Compaction updates all rows that speak, in one transaction, again and again: where a page has no room the new version
goes elsewhere, into each index too. Measured after a day of 10,000 series: 967 bytes a row before, of which 220 are it.
"""

from django.db import migrations

ROOM = """
ALTER TABLE metrics_series SET (fillfactor = 50);
CLUSTER metrics_series USING metrics_series_pkey;
ALTER TABLE metrics_series SET WITHOUT CLUSTER;
"""

LESS = "ALTER TABLE metrics_series SET (fillfactor = 90);"


class Migration(migrations.Migration):
    dependencies = [("metrics", "0007_push_protocols")]

    operations = [migrations.RunSQL(ROOM, LESS)]
