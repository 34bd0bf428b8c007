"""The addresses that messages lead to, and those that providers call."""

from django.urls import path

from apps.notifications import views

urlpatterns = [
    path("r/<str:token>/", views.answer, name="answer"),
    path("from/email/", views.mail_events, name="mail-events"),
    path("from/<slug:kind>/", views.provider, name="provider"),
    path("from/<slug:kind>/<str:token>/", views.provider, name="provider-receipt"),
]
