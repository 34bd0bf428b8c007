"""Settings: the environment gives addresses and secrets, the admin gives policy, the code gives constants."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import django_stubs_ext
import environ
import youplot

from apps.dashboards.admin_theme import UNFOLD as UNFOLD  # noqa: PLC0414  a setting
from monitoring_portal import environment as env

django_stubs_ext.monkeypatch()

ROOT = BASE_DIR = Path(__file__).resolve().parent.parent
env.load_file(ROOT / ".env")
VERSION = env.version(ROOT / "CHANGELOG.md")
DATA = Path(env.text("PORTAL_DATA") or ROOT / "var")

# "portal" in the forked roles (they share a pool each); commands and tests are one-connection processes.
PROCESS = env.text("PORTAL_PROCESS", "manage")

# --- Identity and addresses -------------------------------------------------------------------------------------
SECRET_KEY = env.secret_key(DATA)
SECRET_KEY_FALLBACKS = env.listing("SECRET_KEY_FALLBACKS", [])
SECRET_FIELD_KEYS = [SECRET_KEY, *SECRET_KEY_FALLBACKS]
DEBUG = False
PORTAL_URL = env.url("PORTAL_URL", "http://127.0.0.1:3000", "http", "https").rstrip("/")
_HTTPS = PORTAL_URL.startswith("https://")
ALLOWED_HOSTS = env.listing("ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]"])
if (_portal_host := environ.urlparse(PORTAL_URL).hostname) and _portal_host not in ALLOWED_HOSTS:
    ALLOWED_HOSTS.append(_portal_host)
CSRF_TRUSTED_ORIGINS = [PORTAL_URL] if _HTTPS else []

# --- Rooms, floor by floor --------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "channels",
    "anymail",
    "axes",
    "csp",
    "apps.core",
    "apps.accounts",
    "apps.metrics",
    "apps.alerting",
    "apps.notifications",
    "apps.sources",
    "apps.oncall",
    "apps.dashboards",
    "monitoring_portal",
]
MIDDLEWARE = [
    "apps.metrics.middleware.RequestMetrics",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # Answers differ in length by chance (Django's defence against BREACH), and CSRF tokens are masked anew in each.
    "django.middleware.gzip.GZipMiddleware",
    "monitoring_portal.security.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "monitoring_portal.urls"
ASGI_APPLICATION = "monitoring_portal.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- PostgreSQL and the Redis protocol server -------------------------------------------------------------------
# Without a variable these are the portal's own embedded servers; `./portal` sets both before Django starts.
DATABASE_URL = env.url("DATABASE_URL", "postgres:///portal", "postgres", "postgresql", "pgsql")
REDIS_URL = env.url("REDIS_URL", "redis://127.0.0.1:6379/0", "redis", "rediss", "unix")
_database: dict[str, Any] = environ.Env.db_url_config(DATABASE_URL)
_database["ENGINE"] = "monitoring_portal.postgresql"
_database["CONN_MAX_AGE"] = 0
# The pool looks at a connection before it lends it: after a restart of PostgreSQL all it holds are dead.
_database["CONN_HEALTH_CHECKS"] = True
_database["OPTIONS"] = {
    **_database.get("OPTIONS", {}),
    "application_name": f"portal-{PROCESS}",
}
# Statements are prepared and planned once, which costs the list of rows more than running it; only behind a local
# socket, for poolers hand sessions around.
if not _database.get("HOST") or str(_database["HOST"]).startswith("/"):
    _database["OPTIONS"] |= {"prepare_threshold": 3, "options": "-c plan_cache_mode=force_generic_plan"}
if PROCESS != "manage":
    _database["OPTIONS"]["pool"] = {
        "min_size": 1,
        "max_size": env.integer("PORTAL_POOL_SIZE", 12, 1, 1_000),
        "timeout": 10,
        "max_idle": 120.0,
    }
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def redis_database(number: int, *, celery: bool = False) -> str:
    """Return REDIS_URL for that database number, in the spelling that its user wants."""
    if REDIS_URL.startswith("unix://"):
        path = REDIS_URL.removeprefix("unix://").split("?")[0]
        return f"redis+socket://{path}?virtual_host={number}" if celery else f"unix://{path}?db={number}"
    base, _, query = REDIS_URL.partition("?")
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{rest.split('/')[0]}/{number}" + (f"?{query}" if query else "")


CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": redis_database(1),
        "OPTIONS": {"socket_timeout": 1.0, "socket_connect_timeout": 1.0},
    }
}
CELERY_BROKER_URL = redis_database(0, celery=True)

# --- People -----------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
# A name is locked out at an address, not everywhere: else anybody could lock anybody out.
AUTHENTICATION_BACKENDS = ["apps.accounts.logins.LockOut", "django.contrib.auth.backends.ModelBackend"]
LIVE_PAGES_PER_PERSON = env.integer("LIVE_PAGES_PER_PERSON", 100, 1, 10_000)
AXES_FAILURE_LIMIT = env.integer("LOGIN_FAILURE_LIMIT", 10, 3, 1000)
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_TEMPLATE = "accounts/locked.html"
AXES_RESET_ON_SUCCESS = True
AXES_ENABLE_ADMIN = False
AXES_ENABLE_ACCESS_FAILURE_LOG = False
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/monitoring/"
LOGOUT_REDIRECT_URL = "login"
SESSION_COOKIE_AGE = int(timedelta(days=7).total_seconds())
MONITORING_AUTH_ENABLED = env.boolean("MONITORING_AUTH_ENABLED", True)
MONITORING_AUTH_TOKEN = env.text("MONITORING_AUTH_TOKEN")

# --- Security ---------------------------------------------------------------------------------------------------
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
# Where StatsD packets are taken (UDP has no tokens: whoever reaches it may send); empty: nowhere.
DEMO = env.boolean("PORTAL_DEMO", False)
STATSD_BIND = env.address("STATSD_BIND")
TRUST_PROXY = env.boolean("TRUST_PROXY", False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUST_PROXY else None
SECURE_SSL_REDIRECT = _HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if _HTTPS else 0
# A promise for the whole domain, its other hosts included: only where the operator makes it.
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = env.boolean("HSTS_SUBDOMAINS", False)
SESSION_COOKIE_SECURE = _HTTPS
CSRF_FAILURE_VIEW = "apps.dashboards.views.stale_form"
CSRF_COOKIE_SECURE = _HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
# A login form that must not be a plain-HTTP one says so itself: the portal binds to loopback unless told otherwise.
SILENCED_SYSTEM_CHECKS = [] if _HTTPS else ["security.W004", "security.W008", "security.W012", "security.W016"]
if not SECURE_HSTS_PRELOAD:
    SILENCED_SYSTEM_CHECKS += ["security.W005", "security.W021"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 10_000_000
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2_000

# --- Outbound ---------------------------------------------------------------------------------------------------
OUTBOUND_ALLOW = env.networks("OUTBOUND_ALLOW")
# Ports of the portal on loopback and exact endpoints elsewhere that the outbound door keeps shut.
OWN_PORTS = {environ.urlparse(PORTAL_URL).port or 3000}
OWN_ENDPOINTS: set[tuple[str, int]] = set()
EMAIL_HOST = env.text("SMTP_HOST", "localhost")
EMAIL_PORT = env.integer("SMTP_PORT", 25, 1, 65_535)
EMAIL_HOST_USER = env.text("SMTP_USER")
EMAIL_HOST_PASSWORD = env.text("SMTP_PASSWORD")
EMAIL_USE_TLS = env.boolean("SMTP_TLS", False)
EMAIL_USE_SSL = env.boolean("SMTP_SSL", False)
EMAIL_TIMEOUT = 15
EMAIL_BACKEND = env.text("EMAIL_BACKEND", "django.core.mail.backends.smtp.EmailBackend")
# What Anymail asks for (https://anymail.dev): ANYMAIL_POSTMARK_SERVER_TOKEN, ANYMAIL_WEBHOOK_SECRET, …. What a provider
# has no notion of, such as metadata, is left out of the e-mail instead of refusing it.
ANYMAIL = {"IGNORE_UNSUPPORTED_FEATURES": True, **env.prefixed("ANYMAIL_")}
ALERT_EMAIL_ENABLED = env.boolean("ALERT_EMAIL_ENABLED", True)
ALERT_EMAIL_FROM = env.text("ALERT_EMAIL_FROM")
ALERT_EMAIL_TO = env.listing("ALERT_EMAIL_TO", [])
DEFAULT_FROM_EMAIL = SERVER_EMAIL = ALERT_EMAIL_FROM or "monitoring-portal@localhost"
SLACK_WEBHOOK_URL = env.url("SLACK_WEBHOOK_URL", "", "http", "https")
SLACK_CHANNEL = env.text("SLACK_CHANNEL")
WEBHOOK_URL = env.url("WEBHOOK_URL", "", "http", "https")
WEBHOOK_TOKEN = env.text("WEBHOOK_TOKEN")
# The least time between two firing notifications of one alert to one contact, where the rule names none.
ALERT_COOLDOWN = timedelta(milliseconds=env.integer("ALERT_COOLDOWN_MS", 300_000, 0, 365 * 86_400_000))
# An alert from outside that nobody repeats ends after this long.
ALERT_EXPIRE_AFTER = timedelta(hours=env.integer("ALERT_EXPIRE_HOURS", 24, 1, 365 * 24))
# One that a Prometheus sent without an end ends when it was not sent again for this long (Alertmanager's word).
ALERT_RESOLVE_TIMEOUT = timedelta(seconds=env.integer("ALERT_RESOLVE_TIMEOUT_SECONDS", 300, 1, 86_400))

# --- API --------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.accounts.doors.TokenAuthentication",
        "apps.accounts.doors.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["apps.accounts.doors.Nobody"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_THROTTLE_CLASSES": ["apps.accounts.doors.PrincipalThrottle"],
    "DEFAULT_THROTTLE_RATES": {"principal": "1200/min"},
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
    "PAGE_SIZE": 100,
    "EXCEPTION_HANDLER": "apps.accounts.doors.explain",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Monitoring Portal",
    "DESCRIPTION": "Prometheus' HTTP API, rules, alerts, contacts, routes, tokens, the seed's monitoring API.",
    "VERSION": VERSION,
    "SERVE_PERMISSIONS": ["apps.accounts.doors.Readers"],
    "SERVE_INCLUDE_SCHEMA": False,
    "PREPROCESSING_HOOKS": ["monitoring_portal.api.without_twins"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "monitoring_portal.openapi.with_lanes",
    ],
    "ENUM_ADD_EXPLICIT_BLANK_NULL_CHOICE": False,
    "ENUM_NAME_OVERRIDES": {
        "SeverityEnum": "apps.alerting.models.severities",
        "CategoryEnum": "apps.alerting.models.categories",
        "EndReasonEnum": "apps.alerting.models.reasons",
        "TransitionKindEnum": "apps.alerting.models.transition_kinds",
        "ChannelKindEnum": "apps.notifications.channels.kinds",
        "StepKindEnum": "apps.oncall.steps.kinds",
        "ProbeKindEnum": "apps.sources.probes.kinds",
        "ServerKindEnum": "apps.sources.models.server_kinds",
        "CheckHealthEnum": "apps.sources.models.check_healths",
        "TargetHealthEnum": "apps.sources.models.healths",
        "ContactOriginEnum": "apps.notifications.models.origins",
        "DisturbingSeverityEnum": "apps.notifications.models.severities",
        "TokenOriginEnum": "apps.accounts.models.token_origins",
    },
}

# --- Static files, language, time -------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = ROOT / "static-built"
STATICFILES_DIRS = [ROOT / "static", ("uplot", str(Path(youplot.__file__).parent / "vendor"))]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if "pytest" in sys.modules
        else "apps.dashboards.static_storage.PortalStaticFiles"
    },
}
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = "pytest" in sys.modules
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = "monitoring_portal.formats"

# --- Logs -------------------------------------------------------------------------------------------------------
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": FORMAT}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django.request": {"level": "ERROR"},
        "httpx": {"level": "WARNING"},
        "httpcore": {"level": "WARNING"},
        "uvicorn.access": {"level": "WARNING"},
        "uvicorn.error": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
    },
}
