/* doctor_ports.c - what the given configurations listen on: free, taken and by whom; and whether
 * the router that a worker dials answers. */
#include "common/daemon/listen.h"
#include "ops/cli/doctor/doctor.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_MS 1000

typedef struct {
    struct sockaddr_storage storage;
    socklen_t bytes;
} address;

static bool make_address(const bt_listen *listen, address *ret_address)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&ret_address->storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ret_address->storage;
    memset(ret_address, 0, sizeof(*ret_address));
    const char *text = strcmp(listen->address, "*") == 0 ? "0.0.0.0" : listen->address;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(listen->port);
        ret_address->bytes = sizeof(*v4);
        return true;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1) return false;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(listen->port);
    ret_address->bytes = sizeof(*v6);
    return true;
}

/* Inode of the socket that listens on this port, 0 if /proc does not tell. */
static unsigned long listener_inode(uint16_t port)
{
    static const char *const tables[] = {"/proc/net/tcp", "/proc/net/tcp6"};
    unsigned long found = 0;
    for (int t = 0; t < 2 && found == 0; t++) {
        char line[512];
        FILE *in = fopen(tables[t], "re");
        while (in != NULL && found == 0 && fgets(line, sizeof(line), in) != NULL) {
            unsigned local_port, state;
            unsigned long inode;
            if (sscanf(line, " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s %*s %*s %lu",
                       &local_port, &state, &inode) == 3 &&
                state == 0x0a && local_port == port)
                found = inode;
        }
        if (in != NULL) fclose(in);
    }
    return found;
}

static bool process_has(const char *pid, unsigned long inode)
{
    char folder[64], wanted[64];
    snprintf(folder, sizeof(folder), "/proc/%.16s/fd", pid);
    snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
    DIR *fds = opendir(folder);
    bool has = false;
    for (struct dirent *entry; fds != NULL && !has && (entry = readdir(fds)) != NULL;) {
        char path[400], link[64];
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        ssize_t bytes = readlink(path, link, sizeof(link) - 1);
        link[bytes > 0 ? bytes : 0] = '\0';
        has = strcmp(link, wanted) == 0;
    }
    if (fds != NULL) closedir(fds);
    return has;
}

/* "baton-router (process 123)", or that we cannot see it. */
static void owner_of(uint16_t port, char *ret_owner, size_t capacity)
{
    snprintf(ret_owner, capacity, "a process that we may not see");
    unsigned long inode = listener_inode(port);
    DIR *processes = inode != 0 ? opendir("/proc") : NULL;
    for (struct dirent *entry; processes != NULL && (entry = readdir(processes)) != NULL;) {
        if (!isdigit((unsigned char)entry->d_name[0]) || !process_has(entry->d_name, inode))
            continue;
        char path[300], name[64] = "";
        snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
        FILE *in = fopen(path, "re");
        if (in != NULL && fgets(name, sizeof(name), in) != NULL) name[strcspn(name, "\n")] = '\0';
        if (in != NULL) fclose(in);
        snprintf(ret_owner, capacity, "%s (process %.16s)", name, entry->d_name);
        break;
    }
    if (processes != NULL) closedir(processes);
}

static void check_listen(bt_doctor *doctor, const bt_doctor_config *config, const char *text)
{
    bt_listen listen;
    address at;
    if (bt_listen_parse(text, &listen, NULL) != BT_OK || !make_address(&listen, &at)) {
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, config->name,
                      "give a literal address and a port, as 127.0.0.1:8000 or [::1]:8000",
                      "cannot listen on '%s'", text);
        return;
    }
    if (listen.port == 0) return; /* any free one */
    int fd = socket(at.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) return;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    int error = bind(fd, (struct sockaddr *)&at.storage, at.bytes) != 0 ? errno : 0;
    close(fd);
    if (error == 0) {
        bt_doctor_say(doctor, BT_DOCTOR_OK, config->name, NULL, "%s is free", text);
    } else if (error == EADDRINUSE) {
        char owner[128];
        owner_of(listen.port, owner, sizeof(owner));
        bt_doctor_say(doctor, BT_DOCTOR_WARNING, config->name,
                      "nothing to mend if that is this daemon already running; else choose another "
                      "port or end that process",
                      "%s is in use by %s", text, owner);
    } else {
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, config->name,
                      error == EADDRNOTAVAIL
                          ? "no network device of this host has that address: `ip address`"
                          : "ports below 1024 need CAP_NET_BIND_SERVICE",
                      "cannot listen on %s: %s", text, strerror(error));
    }
}

static int connect_error(const address *at)
{
    int fd = socket(at->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return errno;
    int error = connect(fd, (const struct sockaddr *)&at->storage, at->bytes) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
        struct pollfd polled = {.fd = fd, .events = POLLOUT};
        socklen_t bytes = sizeof(error);
        if (poll(&polled, 1, CONNECT_MS) != 1)
            error = ETIMEDOUT;
        else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0)
            error = errno;
    }
    close(fd);
    return error;
}

static void check_router(bt_doctor *doctor, const bt_doctor_config *config)
{
    static const char scheme[] = "tcp://";
    bt_listen listen;
    address at;
    if (strncmp(config->router, scheme, strlen(scheme)) != 0 ||
        bt_listen_parse(config->router + strlen(scheme), &listen, NULL) != BT_OK ||
        !make_address(&listen, &at))
        return; /* a host name: the daemon resolves it */
    int error = connect_error(&at);
    bt_doctor_say(doctor, error == 0 ? BT_DOCTOR_OK : BT_DOCTOR_WARNING, config->name,
                  error == 0 ? NULL
                             : "start the router (daemons wait for it), or set router= to its "
                               "control_listen; a firewall in between drops silently",
                  error == 0 ? "the router at %s answers%s" : "the router at %s: %s",
                  config->router, error == 0 ? "" : strerror(error));
}

static void run(bt_doctor *doctor)
{
    for (uint32_t i = 0; i < doctor->config_count; i++) {
        const bt_doctor_config *config = &doctor->configs[i];
        for (uint32_t j = 0; j < config->listen_count; j++)
            check_listen(doctor, config, config->listen[j]);
        if (config->router[0] != '\0') check_router(doctor, config);
    }
}

const bt_doctor_check bt_doctor_ports = {"ports", run};
