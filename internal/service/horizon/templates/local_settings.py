# Written by nines: changes are drift and will be undone.
# In place of the package's file, which makes a key of its own for each machine, readable by whoever
# ran first. The cluster's settings come last, in local_settings.d.

# To the journal.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"short": {"format": "%(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "short"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        # Who logged in, and what failed.
        "openstack_auth": {"level": "INFO"},
        "django": {"handlers": [], "level": "WARNING", "propagate": True},
    },
}
