/* doctor_libraries.c - the libraries as they are loaded now, beside what we were built with. */
#include "common/xfer/xfer.h"
#include "ops/cli/doctor/doctor.h"

#include <google/protobuf-c/protobuf-c.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <ucp/api/ucp.h>
#include <utf8proc.h>
#include <uv.h>
#include <zmq.h>

static void check_zmq(bt_doctor *doctor)
{
    int major, minor, patch;
    zmq_version(&major, &minor, &patch);
    bool curve = zmq_has("curve") == 1;
    bt_doctor_say(doctor, curve ? BT_DOCTOR_OK : BT_DOCTOR_PROBLEM, "ZeroMQ",
                  curve ? NULL : "install a libzmq with CURVE (Debian's libzmq5 has it)",
                  "%d.%d.%d, CURVE %s", major, minor, patch, curve ? "yes" : "no");
}

/* Two UCX versions do not talk to each other: pairing refuses them. */
static void check_ucx(bt_doctor *doctor)
{
    uint32_t major, minor;
    bt_xfer_version(&major, &minor);
    bool same = major == UCP_API_MAJOR && minor == UCP_API_MINOR;
    bt_doctor_say(doctor, same ? BT_DOCTOR_OK : BT_DOCTOR_WARNING, "UCX",
                  same ? NULL
                       : "load the UCX that Baton was built with, on every host: daemons with "
                         "different UCX versions refuse to pair",
                  "%u.%u, built with %d.%d", major, minor, UCP_API_MAJOR, UCP_API_MINOR);
}

static void run(bt_doctor *doctor)
{
    bt_doctor_say(doctor, BT_DOCTOR_OK, "Baton", NULL, "%s", BT_VERSION);
    check_zmq(doctor);
    check_ucx(doctor);
    bt_doctor_say(doctor, BT_DOCTOR_OK, "libuv", NULL, "%s", uv_version_string());
    bt_doctor_say(doctor, BT_DOCTOR_OK, "protobuf-c", NULL, "%s", protobuf_c_version());
    bt_doctor_say(doctor, BT_DOCTOR_OK, "libsodium", NULL, "%s", sodium_version_string());
    bt_doctor_say(doctor, BT_DOCTOR_OK, "jansson", NULL, "%s", JANSSON_VERSION);
    bt_doctor_say(doctor, BT_DOCTOR_OK, "utf8proc", NULL, "%s, Unicode %s", utf8proc_version(),
                  utf8proc_unicode_version());
}

const bt_doctor_check bt_doctor_libraries = {"libraries", run};
