"""This room's endpoints alone, so that its tests need no other room."""

from rest_framework.routers import DefaultRouter

from apps.alerting import api

router = DefaultRouter(use_regex_path=False)
router.include_root_view = False
api.register(router)
urlpatterns = router.urls
