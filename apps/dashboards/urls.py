"""Addresses of the pages that people open; the live connection (/ws/live) is routed in asgi.py."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from apps.dashboards import check_pages, incident_pages, quiet_pages, target_pages, views

urlpatterns = [
    path(
        "accounts/login/",
        LoginView.as_view(template_name="accounts/login.html", redirect_authenticated_user=False),
        name="login",
    ),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("monitoring/", views.overview, name="overview"),
    path("monitoring/performance/", views.performance, name="performance"),
    path("monitoring/system/", views.system, name="system"),
    path("monitoring/alerts/", views.alerts, name="alerts"),
    path("monitoring/alerts/<slug:key>/", views.alert, name="alert"),
    path("monitoring/alerts/<slug:key>/not-an-anomaly/", views.not_an_anomaly, name="not-an-anomaly"),
    path("monitoring/alerts/<slug:key>/acknowledge/", views.acknowledge, name="acknowledge"),
    path("monitoring/alerts/<slug:key>/resolve/", views.resolve, name="resolve"),
    path("monitoring/incidents/", incident_pages.incidents, name="incidents"),
    path("monitoring/incidents/<int:pk>/", incident_pages.incident, name="incident"),
    path("monitoring/incidents/<int:pk>/acknowledge/", incident_pages.acknowledge, name="incident-acknowledge"),
    path("monitoring/incidents/<int:pk>/resolve/", incident_pages.resolve, name="incident-resolve"),
    path("monitoring/incidents/<int:pk>/merge/", incident_pages.merge, name="incident-merge"),
    path("monitoring/incidents/<int:pk>/split/", incident_pages.split, name="incident-split"),
    path("monitoring/quiet/", quiet_pages.quiet, name="quiet"),
    path("monitoring/quiet/new/", quiet_pages.new_silence, name="silence-new"),
    path("monitoring/quiet/preview/", quiet_pages.preview, name="silence-preview"),
    path("monitoring/quiet/<uuid:pk>/", quiet_pages.silence, name="silence"),
    path("monitoring/quiet/<uuid:pk>/expire/", quiet_pages.expire, name="silence-expire"),
    path("monitoring/services/", quiet_pages.services, name="services"),
    path("monitoring/maintenance.ics", quiet_pages.feed, name="maintenance-feed"),
    path("monitoring/hygiene.csv", views.hygiene_table, name="hygiene-table"),
    path("monitoring/hygiene/<slug:slug>/<slug:kind>/", views.proposal, name="proposal"),
    path("monitoring/contacts/<int:pk>/test/", views.send_test, name="send-test"),
    path("monitoring/senders/", views.senders, name="senders"),
    path("monitoring/senders/token/", views.sender_token, name="sender-token"),
    path("monitoring/targets/", target_pages.targets, name="targets"),
    path("monitoring/targets/<int:pk>/", target_pages.target, name="target"),
    path("monitoring/targets/<int:pk>/scrape/", target_pages.scrape_now, name="scrape-now"),
    path("monitoring/checks/", check_pages.checks, name="checks"),
    path("monitoring/checks/<int:pk>/", check_pages.check, name="check"),
    path("monitoring/checks/<int:pk>/ask/", check_pages.check_now, name="check-now"),
    path("monitoring/heartbeats/<int:pk>/", check_pages.heartbeat, name="heartbeat"),
    path("monitoring/frontend/", check_pages.frontend, name="frontend"),
    path("monitoring/explore/", views.explore, name="explore"),
    path("monitoring/data/", views.data, name="data"),
]
