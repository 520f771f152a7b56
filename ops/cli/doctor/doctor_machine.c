/* doctor_machine.c - CPU, memory and limits of this machine, as the daemons will meet them. */
#include "kernels/dispatch.h"
#include "ops/cli/doctor/doctor.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MIB (1024.0 * 1024.0)
#define GIB (1024.0 * MIB)
#define FILES_WANTED 4096u

/* The value of the first line "name : value" of a file of /proc; empty if there is none. */
static void proc_value(const char *path, const char *name, char *ret_value, size_t capacity)
{
    char line[512];
    FILE *in = fopen(path, "re");
    ret_value[0] = '\0';
    while (in != NULL && fgets(line, sizeof(line), in) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, name, strlen(name)) != 0 || colon == NULL) continue;
        char *value = colon + 1 + strspn(colon + 1, " \t");
        value[strcspn(value, "\n")] = '\0';
        snprintf(ret_value, capacity, "%s", value);
        break;
    }
    if (in != NULL) fclose(in);
}

static double number_in_file(const char *path)
{
    char text[64] = "";
    FILE *in = fopen(path, "re");
    if (in == NULL) return -1;
    bool got = fgets(text, sizeof(text), in) != NULL;
    fclose(in);
    char *end;
    double number = got ? strtod(text, &end) : -1;
    return got && end != text ? number : -1; /* "max" has no number */
}

static void check_cpu(bt_doctor *doctor)
{
    char model[256];
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;
    proc_value("/proc/cpuinfo", "model name", model, sizeof(model));
    const char *kernels = bt_kernels_best()->name;
    bool reference = strcmp(kernels, "ref") == 0;
    bt_doctor_say(doctor, reference ? BT_DOCTOR_WARNING : BT_DOCTOR_OK, "CPU",
                  reference ? "use a CPU (or a VM type) with AVX2 and FMA: without them the CPU "
                              "engine runs its reference kernels, tens of times slower"
                            : NULL,
                  "%s, %d cores for us, kernels: %s", model[0] != '\0' ? model : "unknown", cores,
                  kernels);
}

static void check_memory(bt_doctor *doctor)
{
    char total[64], available[64];
    proc_value("/proc/meminfo", "MemTotal", total, sizeof(total));
    proc_value("/proc/meminfo", "MemAvailable", available, sizeof(available));
    double limit = number_in_file("/sys/fs/cgroup/memory.max");
    double free_bytes = strtod(available, NULL) * 1024;
    char cgroup[64] = "";
    if (limit > 0) {
        double used = number_in_file("/sys/fs/cgroup/memory.current");
        if (limit - used < free_bytes) free_bytes = limit - used;
        snprintf(cgroup, sizeof(cgroup), ", cgroup limit %.1f GiB", limit / GIB);
    }
    bool little = free_bytes < 1 * GIB;
    bt_doctor_say(doctor, little ? BT_DOCTOR_WARNING : BT_DOCTOR_OK, "memory",
                  little ? "weights, KV pool and landing memory must fit: raise MemoryMax of the "
                           "unit or the container, or lower pool_tokens"
                         : NULL,
                  "%.1f of %.1f GiB available%s", free_bytes / GIB,
                  strtod(total, NULL) * 1024 / GIB, cgroup);
}

/* UCX's posix transport puts the landing arena and its queues there. */
static void check_shared_memory(bt_doctor *doctor)
{
    struct statvfs info;
    if (statvfs("/dev/shm", &info) != 0) {
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, "/dev/shm",
                      "mount a tmpfs on /dev/shm: KV between two processes of one host crosses it",
                      "%s", strerror(errno));
        return;
    }
    double bytes = (double)info.f_bavail * (double)info.f_frsize;
    bool little = bytes < 256 * MIB;
    bt_doctor_say(doctor, little ? BT_DOCTOR_WARNING : BT_DOCTOR_OK, "/dev/shm",
                  little ? "give containers more (docker run --shm-size=2g, Kubernetes: an "
                           "emptyDir with medium Memory): landing memory of the decode daemon is "
                           "(slots + 1) x cells x cell_bytes"
                         : NULL,
                  "%.0f MiB free", bytes / MIB);
}

static void check_limits(bt_doctor *doctor)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        bool few = files.rlim_cur < FILES_WANTED;
        bt_doctor_say(doctor, few ? BT_DOCTOR_WARNING : BT_DOCTOR_OK, "open files",
                      few ? "ulimit -n 65536, or LimitNOFILE=65536 in the unit: each client and "
                            "each daemon of a router takes one"
                          : NULL,
                      "%llu at most", (unsigned long long)files.rlim_cur);
    }
    struct rlimit locked;
    if (getrlimit(RLIMIT_MEMLOCK, &locked) == 0) {
        bool unlimited = locked.rlim_cur == RLIM_INFINITY;
        char text[64] = "unlimited";
        if (!unlimited) snprintf(text, sizeof(text), "%.0f MiB", (double)locked.rlim_cur / MIB);
        /* Only RDMA pins what it registers. */
        bool rdma = access("/dev/infiniband", F_OK) == 0;
        bt_doctor_say(doctor, rdma && !unlimited ? BT_DOCTOR_WARNING : BT_DOCTOR_OK,
                      "locked memory",
                      rdma && !unlimited ? "LimitMEMLOCK=infinity in the unit: RDMA pins the "
                                           "landing memory"
                                         : NULL,
                      "%s", text);
    }
}

/* H1: the death of a peer is proven by a pidfd, and told by heartbeats alone without. */
static void check_kernel(bt_doctor *doctor)
{
    struct utsname name;
    if (uname(&name) != 0) return;
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (fd >= 0) {
        close(fd);
        bt_doctor_say(doctor, BT_DOCTOR_OK, "kernel", NULL, "%s %s, pidfd works", name.sysname,
                      name.release);
        return;
    }
    bt_doctor_say(doctor, BT_DOCTOR_WARNING, "kernel",
                  "allow pidfd_open (Linux 5.3 and later; seccomp profiles may forbid it): without "
                  "it landing slots of a dead prefill daemon stay in quarantine",
                  "%s %s: pidfd_open: %s", name.sysname, name.release, strerror(errno));
}

static void run(bt_doctor *doctor)
{
    check_cpu(doctor);
    check_memory(doctor);
    check_shared_memory(doctor);
    check_limits(doctor);
    check_kernel(doctor);
}

const bt_doctor_check bt_doctor_machine = {"machine", run};
