"""Addresses of the pages that people open; the live connection (/ws/live) is routed in asgi.py."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from apps.dashboards import views

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
    path("monitoring/hygiene.csv", views.hygiene_table, name="hygiene-table"),
    path("monitoring/hygiene/<slug:slug>/<slug:kind>/", views.proposal, name="proposal"),
    path("monitoring/contacts/<int:pk>/test/", views.send_test, name="send-test"),
    path("monitoring/explore/", views.explore, name="explore"),
    path("monitoring/data/", views.data, name="data"),
]
