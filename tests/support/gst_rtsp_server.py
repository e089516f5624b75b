"""GStreamer's RTSP server, as a program of its own for Debian's Python, whose bindings it needs.

Takes its orders as JSON in the first argument: `{"mounts": {path: {"launch": pipeline, "record": bool}},
"port": 0, "user": "", "password": "", "certificate": ""}`. Prints its port once it listens.
"""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


def main() -> None:
    order = json.loads(sys.argv[1])
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(order.get("port", 0)))
    pool = GstRtspServer.RTSPThreadPool()
    pool.set_max_threads(16)
    server.set_thread_pool(pool)
    user = order.get("user", "")
    role = user or "anybody"
    if user or order.get("certificate"):
        auth = GstRtspServer.RTSPAuth()
        if user:
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(user, order["password"], token(user))
        else:
            auth.set_default_token(token(role))
        if order.get("certificate"):
            auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(order["certificate"]))
        server.set_auth(auth)
    mounts = server.get_mount_points()
    for path, mount in order["mounts"].items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(mount["launch"])
        factory.set_shared(True)
        if mount.get("record"):
            factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
            factory.set_latency(0)
        roles = GstRtspServer.RTSPPermissions()
        for right in ("media.factory.access", "media.factory.construct"):
            roles.add_permission_for_role(role, right, True)
        factory.set_permissions(roles)
        mounts.add_factory(path, factory)
    if not server.attach(None):
        raise SystemExit("the server cannot listen")
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


def token(role: str) -> "GstRtspServer.RTSPToken":
    made = GstRtspServer.RTSPToken()
    made.set_string("media.factory.role", role)
    return made


main()
