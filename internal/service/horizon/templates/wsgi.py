# Written by nines: changes are drift and will be undone.
"""Horizon's application for uWSGI, with a path that says whether it answers.

To render the login page for each health check would cost a tenth of a core.
"""
import os
import sys

# A database driver for Django that is there already, and whose TLS checks names.
import pymysql

pymysql.install_as_MySQLdb()
sys.path.insert(0, "/usr/share/openstack-dashboard")
os.environ["DJANGO_SETTINGS_MODULE"] = "openstack_dashboard.settings"

from django.core.wsgi import get_wsgi_application  # noqa: E402

dashboard = get_wsgi_application()


def application(environ, start_response):
    """Answer health checks; hand everything else on."""
    if environ.get("PATH_INFO") == "/healthcheck":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
        return [b"OK\n"]
    return dashboard(environ, start_response)
