"""Label Studio on this machine only; runs in its own environment: prepare.py FOLDER [PORT].

Without a port it makes FOLDER: a migrated database, which takes a minute, the users, and users.json, their ids and
tokens. With a port it serves FOLDER there until its standard input ends, at the latest with its parent.
"""

import json
import os
import sys
import threading
from pathlib import Path

USERS = ("admin", "ann", "ben", "cho")
LOCAL = {
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SSRF_PROTECTION_ENABLED": "false",
    "ALLOWED_HOSTS": "127.0.0.1",
}
"""Nothing is sent to its makers, and it may fetch from servers of this machine."""


def main(folder: str, port: str = "") -> None:
    home = Path(folder).resolve()
    home.mkdir(parents=True, exist_ok=True)
    os.environ.update(LOCAL, HOME=str(home), LABEL_STUDIO_BASE_DATA_DIR=str(home))
    from label_studio import server  # It reads the environment when it is imported.

    server._setup_env()
    if port:
        threading.Thread(target=_end_with_input, daemon=True).start()
        server._app_run(host="127.0.0.1", port=port)
    server._apply_database_migrations()
    (home / "users.json").write_text(json.dumps(_make_users()))


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def _make_users() -> dict[str, dict[str, str | int]]:
    from organizations.models import Organization
    from users.models import User

    found = {}
    for name in USERS:
        email = f"{name}@example.org"
        user = User.objects.filter(email=email).first() or User.objects.create_user(email=email, password=name)
        organization = Organization.objects.first() or Organization.create_organization(
            created_by=user, title="Peer", legacy_api_tokens_enabled=True
        )
        organization.add_user(user)
        user.is_superuser = user.is_staff = name == USERS[0]
        user.active_organization = organization
        user.save()
        found[name] = {"id": user.id, "email": email, "token": user.auth_token.key}
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
