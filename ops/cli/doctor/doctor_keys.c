/* doctor_keys.c - CURVE keys of the given configurations: readable by the right ones only, pairs
 * that belong together, and each daemon known to the others under the role it has. */
#include "common/loop/zap.h"
#include "ops/cli/doctor/doctor.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    bool have_pair;
    bt_zkeypair pair;
    bt_zap_table *table;
} keys;

static const char no_keys[] = "make keys with `baton keygen` and set key_file and keys_file; "
                              "only daemons that listen on loopback alone may go without";

static void load_keys(bt_doctor *doctor, const bt_doctor_config *config, keys *ret_keys)
{
    bt_err err;
    if (config->key_file[0] == '\0') {
        bt_doctor_say(doctor, BT_DOCTOR_WARNING, config->name, no_keys, "no key_file");
        return;
    }
    if (bt_zkeypair_load(config->key_file, &ret_keys->pair, &err) == BT_OK) {
        ret_keys->have_pair = true;
        bt_doctor_say(doctor, BT_DOCTOR_OK, config->name, NULL, "%s holds a key pair",
                      config->key_file);
    } else {
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, config->name,
                      "chown it to the daemon's user and chmod 600; `baton keygen` makes a new one",
                      "%s", err.message);
    }
    if (config->keys_file[0] != '\0' &&
        bt_zap_table_load(config->keys_file, &ret_keys->table, &err) != BT_OK)
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, config->name,
                      "a line for each daemon: public key, role, name", "%s", err.message);
}

/* Does a let b in? */
static void check_known(bt_doctor *doctor, const bt_doctor_config *a, const keys *ka,
                        const bt_doctor_config *b, const keys *kb)
{
    if (ka->table == NULL || !kb->have_pair) return;
    const bt_zpeer *peer = bt_zap_table_find(ka->table, kb->pair.public_key);
    char mend[320];
    snprintf(mend, sizeof(mend), "add the line `%s %s %s` to %.160s", kb->pair.public_key, b->role,
             b->name, a->keys_file);
    if (peer == NULL)
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, a->name, mend, "does not know the key of %s %s",
                      b->role, b->name);
    else if (strcmp(peer->role, b->role) != 0)
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, a->name, mend, "takes %s for a %s, it is a %s",
                      b->name, peer->role, b->role);
}

static void check_router_key(bt_doctor *doctor, const bt_doctor_config *worker,
                             const bt_doctor_config *router, const keys *kr)
{
    if (!kr->have_pair || strcmp(worker->router_key, kr->pair.public_key) == 0) return;
    char mend[320];
    snprintf(mend, sizeof(mend), "set router_key=%s in %.160s", kr->pair.public_key, worker->file);
    bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, worker->name, mend,
                  worker->router_key[0] != '\0' ? "router_key is not the public key of %s"
                                                : "has no router_key, and %s has a key",
                  router->name);
}

static void run(bt_doctor *doctor)
{
    static keys all[BT_DOCTOR_CONFIGS_MAX];
    uint32_t count = doctor->config_count;
    for (uint32_t i = 0; i < count; i++)
        if (doctor->configs[i].role[0] != '\0') load_keys(doctor, &doctor->configs[i], &all[i]);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < count; j++) {
            const bt_doctor_config *a = &doctor->configs[i], *b = &doctor->configs[j];
            if (strcmp(a->role, b->role) == 0) continue; /* also i == j */
            check_known(doctor, a, &all[i], b, &all[j]);
            if (strcmp(b->role, "router") == 0 && a->role[0] != '\0')
                check_router_key(doctor, a, b, &all[j]);
        }
    }
    for (uint32_t i = 0; i < count; i++) bt_zap_table_destroy(all[i].table);
    memset(all, 0, sizeof(all)); /* secrets */
}

const bt_doctor_check bt_doctor_keys = {"keys", run};
