/* doctor_fleet.c - a running fleet, as its router tells: who is there, who may hand over to whom,
 * and whether the measured lanes are what this kind of host can do. */
#include "ops/cli/doctor/doctor.h"
#include "ops/cli/fetch.h"

#include <stdio.h>
#include <string.h>

#define SLOW_GB_PER_S 0.5 /* any lane but a network of 4 Gbit/s and less does better */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static void check_router(bt_doctor *doctor, const json_t *router)
{
    bool serving = json_is_true(json_object_get(router, "serving"));
    bt_doctor_say(doctor, serving ? BT_DOCTOR_OK : BT_DOCTOR_PROBLEM, text_of(router, "name"),
                  serving ? NULL
                          : "start a prefill and a decode daemon with router= its control "
                            "endpoint; see the pairs below and the daemons' logs",
                  "version %s, control %s, %s", text_of(router, "version"),
                  text_of(router, "control"), serving ? "serving" : "no pair is ready");
    if (strcmp(text_of(router, "version"), BT_VERSION) != 0)
        bt_doctor_say(doctor, BT_DOCTOR_WARNING, text_of(router, "name"),
                      "run one version on all hosts; another one may lack what this one asks for",
                      "the router is %s, this is %s", text_of(router, "version"), BT_VERSION);
}

static void check_daemons(bt_doctor *doctor, const json_t *daemons)
{
    uint32_t up[2] = {0, 0};
    size_t i;
    json_t *daemon;
    json_array_foreach((json_t *)daemons, i, daemon)
    {
        bool is_up = json_is_true(json_object_get(daemon, "up"));
        bool decode = strcmp(text_of(daemon, "role"), "decode") == 0;
        up[decode] += is_up;
        bt_doctor_say(doctor, is_up ? BT_DOCTOR_OK : BT_DOCTOR_WARNING, text_of(daemon, "name"),
                      is_up ? NULL
                            : "its log says why it ended (journalctl -u baton-prefilld or "
                              "baton-decoded); it joins again by itself when it runs",
                      "%s, KV %s, UCX %s%s", text_of(daemon, "role"), text_of(daemon, "kv_dtype"),
                      text_of(daemon, "ucx"), is_up ? "" : ", gone");
    }
    static const char *const roles[] = {"prefill", "decode"};
    for (int role = 0; role < 2; role++)
        if (up[role] == 0)
            bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, roles[role],
                          "start one; if one runs, its router= and router_key= must be this "
                          "router's, and its key be in the router's keys file",
                          "no %s daemon is up", roles[role]);
}

static void check_pair(bt_doctor *doctor, const json_t *pair)
{
    char name[160];
    const char *state = text_of(pair, "state");
    double rate = json_number_value(json_object_get(pair, "gb_per_s"));
    snprintf(name, sizeof(name), "%s, %s", text_of(pair, "prefill"), text_of(pair, "decode"));
    if (strcmp(state, "refused") == 0) {
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, name,
                      "the reason names both sides' values; after mending restart one of the two: "
                      "a refusal stays until then",
                      "refused: %s", text_of(pair, "reason"));
        return;
    }
    if (strcmp(state, "ready") != 0) {
        bt_doctor_say(doctor, BT_DOCTOR_WARNING, name,
                      "give it some seconds; then see both logs: pairing needs the decode daemon's "
                      "pair_listen to be reachable from the prefill daemon",
                      "%s", state);
        return;
    }
    bool slow = rate < SLOW_GB_PER_S;
    bt_doctor_say(doctor, slow ? BT_DOCTOR_WARNING : BT_DOCTOR_OK, name,
                  slow ? "on one host: see transports above; across hosts: RDMA devices and "
                         "net_devices"
                       : NULL,
                  "ready over %s, %.1f GB/s, %s on the wire", text_of(pair, "transport"), rate,
                  text_of(pair, "wire"));
}

static void run(bt_doctor *doctor)
{
    if (doctor->url == NULL) return;
    bt_err err;
    json_t *fleet;
    if (bt_fetch_fleet(doctor->url, &fleet, &err) != BT_OK) {
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, "router",
                      "start the router, or give the address of its http_listen", "%s",
                      err.message);
        return;
    }
    check_router(doctor, json_object_get(fleet, "router"));
    check_daemons(doctor, json_object_get(fleet, "daemons"));
    size_t i;
    json_t *pair;
    json_array_foreach(json_object_get(fleet, "pairs"), i, pair) check_pair(doctor, pair);
    json_decref(fleet);
}

const bt_doctor_check bt_doctor_fleet = {"fleet", run};
