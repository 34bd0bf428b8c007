"""Receivers that forget are told again of what fires, in order and without a word to anybody else."""

from apps.notifications.models import Contact, Delivery
from apps.oncall import renewal
from apps.oncall.models import Notice


def test_what_fires_is_told_again_and_what_is_over_is_not(night):
    manager = Contact.objects.create(name="am", kind="alertmanager", config={"url": "https://am.example"})
    hook = night.contact("hook")
    night.route("root", manager, hook)
    ended, goes_on = night.fire("disk"), night.fire("cpu")
    night.wait(seconds=40)
    night.end(ended)
    night.wait(minutes=6)
    notices = Notice.objects.count()
    assert renewal.renew(now=night.now) == 1
    (delivery,) = Delivery.objects.filter(purpose="renewal")
    assert (delivery.contact, [item["status"] for item in delivery.message["alerts"]]) == (manager, ["firing"])
    assert delivery.message["alerts"][0]["labels"]["alertname"] == goes_on.type
    assert Notice.objects.count() == notices


def test_one_that_has_not_left_yet_is_not_followed_by_another(night):
    manager = Contact.objects.create(name="am", kind="alertmanager", config={"url": "https://am.example"})
    night.route("root", manager)
    night.fire("disk")
    night.wait(seconds=40)
    assert [renewal.renew(now=night.now) for _ in range(2)] == [1, 0]


def test_nobody_is_told_where_nothing_fires(night):
    Contact.objects.create(name="am", kind="alertmanager", config={"url": "https://am.example"})
    assert renewal.renew(now=night.now) == 0
