"""The addresses that messages lead to."""

from django.urls import path

from apps.notifications import views

urlpatterns = [path("r/<str:token>/", views.answer, name="answer")]
