"""What PostgreSQL must know of the store: payloads are compressed by us, and rows come and go all day.

Autovacuum by count instead of by share, so that the young rows' space is used again within seconds; no truncation,
because it would take an exclusive lock only to give back what the next minute needs.
"""

from django.db import migrations

STORAGE = """
ALTER TABLE metrics_batch ALTER COLUMN payload SET STORAGE EXTERNAL;
ALTER TABLE metrics_block ALTER COLUMN payload SET STORAGE EXTERNAL;
ALTER TABLE metrics_block ALTER COLUMN directory SET STORAGE MAIN;
ALTER TABLE metrics_batch SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    vacuum_truncate = off,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000,
    toast.vacuum_truncate = off
);
ALTER TABLE metrics_block SET (
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 200,
    vacuum_truncate = off,
    toast.autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_threshold = 20000,
    toast.vacuum_truncate = off
);
ALTER TABLE metrics_series ALTER COLUMN labels SET STORAGE MAIN;
ALTER TABLE metrics_series SET (fillfactor = 90);
"""

PLAIN = """
ALTER TABLE metrics_batch ALTER COLUMN payload SET STORAGE EXTENDED;
ALTER TABLE metrics_block ALTER COLUMN payload SET STORAGE EXTENDED;
ALTER TABLE metrics_block ALTER COLUMN directory SET STORAGE EXTENDED;
ALTER TABLE metrics_series ALTER COLUMN labels SET STORAGE EXTENDED;
"""


class Migration(migrations.Migration):
    dependencies = [("metrics", "0001_initial")]

    operations = [migrations.RunSQL(STORAGE, PLAIN)]
