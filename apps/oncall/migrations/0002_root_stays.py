"""The root route cannot be deleted, nor stop being the root: whatever matches nothing else must go somewhere."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("oncall", "0001_initial")]

    operations = [
        migrations.RunSQL(
            """
            CREATE FUNCTION oncall_root_stays() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF TG_OP = 'UPDATE' THEN
                    IF NEW.is_root THEN RETURN NEW; END IF;
                END IF;
                RAISE EXCEPTION 'The root route % cannot be deleted or replaced; change its contacts or policy.', OLD.name
                    USING ERRCODE = 'restrict_violation';
            END $$;
            CREATE TRIGGER root_stays BEFORE DELETE OR UPDATE OF is_root ON oncall_route
                FOR EACH ROW WHEN (OLD.is_root) EXECUTE FUNCTION oncall_root_stays();
            """,
            """
            DROP TRIGGER root_stays ON oncall_route;
            DROP FUNCTION oncall_root_stays();
            """,
        )
    ]
