"""Audit entries can be added and read, never changed or removed: the database itself refuses, whoever asks.

Row and statement triggers do not fire under `session_replication_role = replica`, which only a database superuser
can set: that is how tests flush, and why the portal should not connect as one.
"""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [
        migrations.RunSQL(
            """
            CREATE FUNCTION accounts_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION 'The audit trail is append-only: % on % is refused.', TG_OP, TG_TABLE_NAME
                    USING ERRCODE = 'insufficient_privilege';
            END $$;
            CREATE TRIGGER audit_rows_stay BEFORE UPDATE OR DELETE ON accounts_auditentry
                FOR EACH ROW EXECUTE FUNCTION accounts_refuse_change();
            CREATE TRIGGER audit_table_stays BEFORE TRUNCATE ON accounts_auditentry
                FOR EACH STATEMENT EXECUTE FUNCTION accounts_refuse_change();
            """,
            """
            DROP TRIGGER audit_table_stays ON accounts_auditentry;
            DROP TRIGGER audit_rows_stay ON accounts_auditentry;
            DROP FUNCTION accounts_refuse_change();
            """,
        )
    ]
