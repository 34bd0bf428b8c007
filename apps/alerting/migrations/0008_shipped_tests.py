from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("alerting", "0007_review_dates"),
    ]

    operations = [
        migrations.AddField(
            model_name="ruletest",
            name="is_shipped",
            field=models.BooleanField(
                default=False,
                editable=False,
                help_text="As the release has it: it expects the shipped rule, so it does not refuse a change of one.",
            ),
        ),
    ]
