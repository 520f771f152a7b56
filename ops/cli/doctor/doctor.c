#include "ops/cli/doctor/doctor.h"

#include "common/base/parse.h"
#include "common/net/json_out.h"
#include "ops/cli/command.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char help[] =
    "usage: baton doctor [options]\n\n"
    "Looks at what the daemons depend on and says what is wrong and how to mend it: this machine\n"
    "(CPU, memory, limits), the libraries, the transports KV can take between two processes here,\n"
    "and whatever is given of configurations, a model folder and a running fleet. It changes "
    "nothing.\n\n"
    "  --config FILE  a daemon's configuration; may be repeated: keys and models are compared\n"
    "  --model DIR    a Hugging Face checkpoint folder\n"
    "  --url URL      a running router, as http://127.0.0.1:8000: daemons, pairs, refusals\n"
    "  --json         print the findings as JSON\n\n"
    "Exit codes: 0 no problem was found (there may be warnings), 1 there are problems, 2 wrong "
    "usage.\n\n"
    "Example: baton doctor --model ops/model --url http://127.0.0.1:8000\n";

static const bt_doctor_check *const checks[] = {
    &bt_doctor_machine, &bt_doctor_libraries, &bt_doctor_transports, &bt_doctor_configs,
    &bt_doctor_keys,    &bt_doctor_ports,     &bt_doctor_models,     &bt_doctor_fleet,
};
enum { CHECKS = sizeof(checks) / sizeof(checks[0]) };

static const char *const level_names[] = {"ok", "warning", "problem"};

void bt_doctor_say(bt_doctor *doctor, bt_doctor_level level, const char *subject, const char *mend,
                   const char *fmt, ...)
{
    if (doctor->finding_count == BT_DOCTOR_FINDINGS_MAX) return;
    bt_doctor_finding *finding = &doctor->findings[doctor->finding_count++];
    char text[sizeof(finding->text)];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    finding->level = level;
    finding->check = doctor->check;
    bt_escape(subject, strlen(subject), finding->subject, sizeof(finding->subject));
    bt_escape(text, strlen(text), finding->text, sizeof(finding->text));
    snprintf(finding->mend, sizeof(finding->mend), "%s", mend != NULL ? mend : "");
}

static void child_run(const char *program, const char *const *args, int out)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 64);
    path[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(path, '/');
    snprintf(slash != NULL ? slash + 1 : path, 64, "%s", program);
    const char *argv[16] = {path};
    for (int i = 0; args[i] != NULL && i < 14; i++) argv[i + 1] = args[i];
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execv(path, (char *const *)argv);
    dprintf(STDERR_FILENO, "%s: %s", path, strerror(errno));
    _exit(127);
}

int bt_doctor_capture(const char *program, const char *const *args, char *ret_text, size_t capacity)
{
    int ends[2];
    ret_text[0] = '\0';
    if (pipe(ends) != 0) return -1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) child_run(program, args, ends[1]);
    close(ends[1]);
    size_t used = 0;
    char spill[4096];
    for (;;) { /* to its end, so that the child never blocks */
        bool room = used + 1 < capacity;
        ssize_t got = child < 0 ? 0
                                : read(ends[0], room ? ret_text + used : spill,
                                       room ? capacity - 1 - used : sizeof(spill));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        if (room) used += (size_t)got;
    }
    ret_text[used] = '\0';
    close(ends[0]);
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

/* ---- what it prints ---- */

static uint32_t count_level(const bt_doctor *doctor, bt_doctor_level level)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < doctor->finding_count; i++)
        count += doctor->findings[i].level == level;
    return count;
}

static void print_text(const bt_doctor *doctor)
{
    const char *heading = NULL;
    for (uint32_t i = 0; i < doctor->finding_count; i++) {
        const bt_doctor_finding *finding = &doctor->findings[i];
        if (heading != finding->check) printf("%s%s\n", i > 0 ? "\n" : "", finding->check);
        heading = finding->check;
        printf("  %-8s %-22s %s\n", level_names[finding->level], finding->subject, finding->text);
        if (finding->mend[0] != '\0') printf("  %-8s mend: %s\n", "", finding->mend);
    }
    printf("\n%u ok, %u warnings, %u problems\n", count_level(doctor, BT_DOCTOR_OK),
           count_level(doctor, BT_DOCTOR_WARNING), count_level(doctor, BT_DOCTOR_PROBLEM));
}

static void print_json(const bt_doctor *doctor)
{
    bt_json_out json;
    bt_json_init(&json, 1u << 20);
    bt_json_begin(&json, '{');
    bt_json_key(&json, "version");
    bt_json_text(&json, BT_VERSION);
    for (int level = BT_DOCTOR_OK; level <= BT_DOCTOR_PROBLEM; level++) {
        bt_json_key(&json, level_names[level]);
        bt_json_u64(&json, count_level(doctor, (bt_doctor_level)level));
    }
    bt_json_key(&json, "findings");
    bt_json_begin(&json, '[');
    for (uint32_t i = 0; i < doctor->finding_count; i++) {
        const bt_doctor_finding *finding = &doctor->findings[i];
        bt_json_begin(&json, '{');
        bt_json_key(&json, "check");
        bt_json_text(&json, finding->check);
        bt_json_key(&json, "level");
        bt_json_text(&json, level_names[finding->level]);
        bt_json_key(&json, "subject");
        bt_json_text(&json, finding->subject);
        bt_json_key(&json, "text");
        bt_json_text(&json, finding->text);
        bt_json_key(&json, "mend");
        bt_json_text(&json, finding->mend[0] != '\0' ? finding->mend : NULL);
        bt_json_end(&json, '}');
    }
    bt_json_end(&json, ']');
    bt_json_end(&json, '}');
    fwrite(json.data, 1, json.bytes, stdout);
    putchar('\n');
    bt_json_finish(&json);
}

static int run_doctor(int argc, char **argv)
{
    bt_option_texts configs = {0};
    bool json = false;
    bt_doctor *doctor = calloc(1, sizeof(*doctor));
    if (doctor == NULL) return BT_EXIT_FAILURE;
    const bt_option options[] = {
        {.name = "--config", .kind = BT_OPTION_TEXTS, .value = &configs},
        {.name = "--model", .kind = BT_OPTION_TEXT, .value = &doctor->model},
        {.name = "--url", .kind = BT_OPTION_TEXT, .value = &doctor->url},
        {.name = "--json", .kind = BT_OPTION_FLAG, .value = &json},
    };
    int code = bt_options_parse(argc, argv, options, sizeof(options) / sizeof(options[0]));
    if (code == BT_EXIT_OK && configs.count > BT_DOCTOR_CONFIGS_MAX)
        code = bt_options_fail(argv[0], "--config: at most %u of them", BT_DOCTOR_CONFIGS_MAX);
    if (code != BT_EXIT_OK) {
        free(doctor);
        return code;
    }
    for (unsigned i = 0; i < configs.count; i++)
        doctor->configs[doctor->config_count++].file = configs.items[i];
    for (int i = 0; i < CHECKS; i++) {
        doctor->check = checks[i]->name;
        checks[i]->run(doctor);
    }
    if (json)
        print_json(doctor);
    else
        print_text(doctor);
    bool problems = count_level(doctor, BT_DOCTOR_PROBLEM) > 0;
    free(doctor);
    return problems ? BT_EXIT_FAILURE : BT_EXIT_OK;
}

const bt_cli_command bt_cli_doctor = {
    .name = "doctor",
    .summary = "say what is wrong here, and how to mend it",
    .help = help,
    .run = run_doctor,
};
