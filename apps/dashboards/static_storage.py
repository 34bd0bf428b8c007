"""Static files by the hash of their content, the modules that scripts import included: no page mixes two releases."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class PortalStaticFiles(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Rewrites `import … from "./x.js"` too; without it only what templates name would carry a hash."""

    support_js_module_import_aggregation = True
