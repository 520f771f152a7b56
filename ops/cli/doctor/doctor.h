/* doctor.h - `baton doctor`: what is wrong on this machine or in these configurations, and how to
 * mend it.
 *
 * WHAT    A list of checks; each looks at one thing a daemon depends on and says one or more
 *         findings. A check only looks: it starts no daemon and changes nothing.
 * ADD ONE doctor_<name>.c with one `const bt_doctor_check`, and one line in doctor.c. */
#ifndef BT_OPS_CLI_DOCTOR_DOCTOR_H
#define BT_OPS_CLI_DOCTOR_DOCTOR_H

#include "common/base/limits.h"
#include "common/config/config.h"
#include "ops/cli/options.h"

#include <stdbool.h>
#include <stdint.h>

#define BT_DOCTOR_CONFIGS_MAX 16u
#define BT_DOCTOR_FINDINGS_MAX 256u

typedef enum {
    BT_DOCTOR_OK,
    BT_DOCTOR_WARNING, /* works, but not as well as it could, or not under load */
    BT_DOCTOR_PROBLEM  /* a daemon will not start, or not serve */
} bt_doctor_level;

typedef struct {
    bt_doctor_level level;
    const char *check; /* static */
    char subject[64];
    char text[512];
    char mend[512]; /* empty if ok */
} bt_doctor_finding;

/* What a daemon's configuration says, as far as the checks need it. Empty text: not set. */
typedef struct {
    const char *file;
    char role[16];
    char name[BT_NAME_BYTES_MAX];
    char model[BT_CONFIG_PATH_BYTES_MAX];
    char key_file[BT_CONFIG_PATH_BYTES_MAX], keys_file[BT_CONFIG_PATH_BYTES_MAX];
    char router[128], router_key[48]; /* workers */
    char listen[3][128];              /* ADDRESS:PORT of what it binds */
    uint32_t listen_count;
    char transports[64];
    uint64_t landing_bytes; /* decode */
} bt_doctor_config;

typedef struct {
    const char *model; /* --model, or NULL */
    const char *url;   /* --url, or NULL */
    bt_doctor_config configs[BT_DOCTOR_CONFIGS_MAX];
    uint32_t config_count;
    const char *check; /* the one that runs now */
    bt_doctor_finding findings[BT_DOCTOR_FINDINGS_MAX];
    uint32_t finding_count;
} bt_doctor;

typedef struct {
    const char *name; /* "transports": the heading of its findings */
    void (*run)(bt_doctor *doctor);
} bt_doctor_check;

extern const bt_doctor_check bt_doctor_machine, bt_doctor_libraries, bt_doctor_transports,
    bt_doctor_configs, bt_doctor_models, bt_doctor_keys, bt_doctor_ports, bt_doctor_fleet;

/* One finding. mend: what the reader can do; NULL if nothing is wrong. */
void bt_doctor_say(bt_doctor *doctor, bt_doctor_level level, const char *subject, const char *mend,
                   const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* Runs a program that lies beside `baton` and collects what it prints, stderr too, cut to capacity.
 * Returns its exit code, or -1 if it could not be run. */
int bt_doctor_capture(const char *program, const char *const *args, char *ret_text,
                      size_t capacity);

#endif
