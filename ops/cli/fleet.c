#include "ops/cli/fleet.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STOP_GRACE_MS 5000
#define SHORT_LIFE_MS 10000
#define SHORT_LIVES_MAX 5u /* one more in a row, and the restart waits */
#define RESTART_MS 100
#define RESTART_SLOW_MS 2000

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static bt_status open_notify(bt_fleet *fleet, bt_err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", fleet->dir);
    if (length < 0 || (size_t)length >= sizeof(address.sun_path))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "the path %s/notify is too long for a socket",
                       fleet->dir);
    fleet->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fleet->notify_fd < 0 ||
        bind(fleet->notify_fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        return BT_FAIL(err, BT_ERR_OS, "notification socket %s: %s", address.sun_path,
                       strerror(errno));
    return BT_OK;
}

static void remove_dir(const char *dir)
{
    DIR *open_dir = opendir(dir);
    if (open_dir == NULL) return;
    for (struct dirent *entry; (entry = readdir(open_dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(open_dir), entry->d_name, 0);
    }
    closedir(open_dir);
    rmdir(dir);
}

/* Removes a folder of ours whose owner is gone: its lock is there, and nobody holds it. */
static void remove_if_stale(const char *dir)
{
    struct stat info;
    if (lstat(dir, &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != geteuid() ||
        (info.st_mode & 07777) != 0700)
        return;
    char path[300];
    if (snprintf(path, sizeof(path), "%s/lock", dir) >= (int)sizeof(path)) return;
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) remove_dir(dir);
    close(fd);
}

static void remove_stale(const char *base)
{
    DIR *folder = opendir(base);
    if (folder == NULL) return;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char dir[256];
        if (strncmp(entry->d_name, "baton-", 6) != 0 || strlen(entry->d_name) != 12) continue;
        if (snprintf(dir, sizeof(dir), "%s/%s", base, entry->d_name) < (int)sizeof(dir))
            remove_if_stale(dir);
    }
    closedir(folder);
}

/* The lock gets its name once it is held, so that nobody ever sees it free. */
static bt_status take_lock(bt_fleet *fleet, bt_err *err)
{
    char made[300], path[300];
    snprintf(made, sizeof(made), "%s/lock.new", fleet->dir);
    snprintf(path, sizeof(path), "%s/lock", fleet->dir);
    fleet->lock_fd = open(made, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fleet->lock_fd < 0 || flock(fleet->lock_fd, LOCK_EX) != 0 || rename(made, path) != 0)
        return BT_FAIL(err, BT_ERR_OS, "%s: %s", path, strerror(errno));
    return BT_OK;
}

bt_status bt_fleet_open(bt_fleet *fleet, bt_err *err)
{
    memset(fleet, 0, sizeof(*fleet));
    fleet->lock_fd = fleet->notify_fd = fleet->signal_fd = fleet->keys_fd = -1;
    const char *base = getenv("TMPDIR");
    if (base == NULL || strlen(base) >= 60) base = "/tmp";
    remove_stale(base);
    snprintf(fleet->dir, sizeof(fleet->dir), "%s/baton-XXXXXX", base);
    if (mkdtemp(fleet->dir) == NULL) {
        bt_status status = BT_FAIL(err, BT_ERR_OS, "folder %s: %s", fleet->dir, strerror(errno));
        fleet->dir[0] = '\0';
        return status;
    }
    bt_status status = take_lock(fleet, err);
    if (status != BT_OK) return status;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    fleet->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fleet->signal_fd < 0) return BT_FAIL(err, BT_ERR_OS, "signalfd: %s", strerror(errno));
    return open_notify(fleet, err);
}

/* The first member is the router. */
bt_fleet_member *bt_fleet_add(bt_fleet *fleet, const char *role, uint32_t index,
                              const char *program)
{
    assert(fleet->member_count < BT_FLEET_MAX);
    bt_fleet_member *member = &fleet->members[fleet->member_count++];
    member->key_fd = -1;
    snprintf(member->role, sizeof(member->role), "%s", role);
    if (strcmp(role, "router") == 0)
        snprintf(member->name, sizeof(member->name), "router");
    else
        snprintf(member->name, sizeof(member->name), "%s-%u", role, index);
    char self[400];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL) *slash = '\0';
    snprintf(member->program, sizeof(member->program), "%s/%s", self, program);
    char config[sizeof(member->config)];
    snprintf(config, sizeof(config), "%s/%s.conf", fleet->dir, member->name);
    memcpy(member->config, config, sizeof(config));
    return member;
}

static void child_main(const bt_fleet *fleet, const bt_fleet_member *member, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1); /* it died before the line above */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0); /* Ctrl-C reaches us alone, and we end the children in order */
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_fd >= 0) dup2(null_fd, STDIN_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    if (fleet->keys_fd >= 0) fcntl(fleet->keys_fd, F_SETFD, 0);
    if (member->key_fd >= 0) fcntl(member->key_fd, F_SETFD, 0);
    char notify[300];
    snprintf(notify, sizeof(notify), "%s/notify", fleet->dir);
    setenv("NOTIFY_SOCKET", notify, 1);
    /* The router picks its ports; a successor gets the same ones, and the others are told where it is. */
    bool router = strcmp(member->role, "router") == 0;
    char control[200], listen[200];
    snprintf(control, sizeof(control), "%s.%s=%s", member->role,
             router ? "control_listen" : "router", fleet->control);
    snprintf(listen, sizeof(listen), "router.http_listen=%s", fleet->url + strlen("http://"));
    const char *argv[8] = {member->program, "--config", member->config};
    int argc = 3;
    if (fleet->control[0] != '\0') {
        argv[argc++] = "--set";
        argv[argc++] = control;
    }
    if (router && fleet->url[0] != '\0') {
        argv[argc++] = "--set";
        argv[argc++] = listen;
    }
    execv(member->program, (char *const *)argv);
    fprintf(stderr, "baton up: %s: %s\n", member->program, strerror(errno));
    _exit(127);
}

static bt_status spawn(bt_fleet *fleet, bt_fleet_member *member, bt_err *err)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) return BT_FAIL(err, BT_ERR_OS, "fork for %s: %s", member->name, strerror(errno));
    if (pid == 0) child_main(fleet, member, parent);
    member->pid = pid;
    member->ready = false;
    member->restart_at_ns = 0;
    member->started_ns = now_ns();
    return BT_OK;
}

/* The state file is replaced in one step, so that a reader never sees half of it. */
static bt_status write_state(const bt_fleet *fleet, bt_err *err)
{
    if (fleet->state_file == NULL) return BT_OK;
    char temporary[600];
    snprintf(temporary, sizeof(temporary), "%s.new", fleet->state_file);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (out == NULL)
        return BT_FAIL(err, BT_ERR_OS, "state file %s: %s", temporary, strerror(errno));
    fprintf(out, "{\"url\": \"%s\", \"ready\": %s, \"pairs\": %u, \"daemons\": [", fleet->url,
            fleet->announced ? "true" : "false", fleet->pairs_ready);
    for (uint32_t i = 0; i < fleet->member_count; i++) {
        const bt_fleet_member *m = &fleet->members[i];
        fprintf(out,
                "%s\n  {\"role\": \"%s\", \"name\": \"%s\", \"pid\": %d, \"metrics\": \"%s\", "
                "\"restarts\": %u}",
                i ? "," : "", m->role, m->name, (int)m->pid, m->metrics_url, m->restarts);
    }
    fputs("\n]}\n", out);
    if (fclose(out) != 0 || rename(temporary, fleet->state_file) != 0)
        return BT_FAIL(err, BT_ERR_OS, "state file %s: %s", fleet->state_file, strerror(errno));
    return BT_OK;
}

/* A fleet that runs goes on without its state file. */
static void update_state(const bt_fleet *fleet)
{
    bt_err err;
    if (write_state(fleet, &err) != BT_OK) fprintf(stderr, "baton up: %s\n", err.message);
}

static bt_fleet_member *member_of(bt_fleet *fleet, pid_t pid)
{
    for (uint32_t i = 0; i < fleet->member_count; i++) {
        if (fleet->members[i].pid == pid && pid != 0) return &fleet->members[i];
    }
    return NULL;
}

static void take_line(bt_fleet *fleet, bt_fleet_member *member, const char *line)
{
    const char *value = strchr(line, '=');
    if (value == NULL) return;
    size_t key = (size_t)(value++ - line);
#define KEY_IS(name) (key == strlen(name) && strncmp(line, name, key) == 0)
    if (KEY_IS("READY")) member->ready = true;
    if (KEY_IS("STATUS")) snprintf(member->status, sizeof(member->status), "%s", value);
    if (KEY_IS("X_BATON_METRICS"))
        snprintf(member->metrics_url, sizeof(member->metrics_url), "%s", value);
    if (strcmp(member->role, "router") != 0) return;
    if (KEY_IS("X_BATON_CONTROL")) snprintf(fleet->control, sizeof(fleet->control), "%s", value);
    if (KEY_IS("X_BATON_URL")) snprintf(fleet->url, sizeof(fleet->url), "%s", value);
    if (KEY_IS("X_BATON_PAIRS_READY")) fleet->pairs_ready = (uint32_t)strtoul(value, NULL, 10);
    if (KEY_IS("X_BATON_PAIRS_REFUSED")) fleet->pairs_refused = (uint32_t)strtoul(value, NULL, 10);
    if (KEY_IS("X_BATON_REFUSAL")) snprintf(fleet->refusal, sizeof(fleet->refusal), "%s", value);
#undef KEY_IS
}

/* Notifications carry the sender's pid by SCM_CREDENTIALS, which the kernel vouches for. */
static bool read_notification(bt_fleet *fleet)
{
    char data[2048];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec part = {data, sizeof(data) - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t bytes = recvmsg(fleet->notify_fd, &message, MSG_CMSG_CLOEXEC);
    if (bytes < 0) return false;
    data[bytes] = '\0';
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_type != SCM_CREDENTIALS) return true;
    struct ucred who;
    memcpy(&who, CMSG_DATA(header), sizeof(who));
    bt_fleet_member *member = member_of(fleet, who.pid);
    if (member == NULL) return true;
    char *rest = data;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) take_line(fleet, member, line);
    return true;
}

static void describe_exit(const bt_fleet_member *member, int status)
{
    if (WIFSIGNALED(status))
        fprintf(stderr, "baton up: %s was killed by signal %d\n", member->name, WTERMSIG(status));
    else
        fprintf(stderr, "baton up: %s exited with code %d\n", member->name, WEXITSTATUS(status));
}

static bt_status reap(bt_fleet *fleet, bt_err *err)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        bt_fleet_member *member = member_of(fleet, pid);
        if (member == NULL) continue;
        bool was_ready = member->ready;
        member->pid = 0;
        member->ready = false;
        describe_exit(member, status);
        update_state(fleet);
        fleet->changed = true;
        if (!fleet->announced && (!was_ready || !fleet->restart))
            return BT_FAIL(err, BT_ERR_ARGUMENT,
                           "%s ended before the fleet was ready; its message stands above",
                           member->name);
        if (!fleet->restart) continue;
        bool short_life = now_ns() - member->started_ns < SHORT_LIFE_MS * 1000000ull;
        member->short_lives = short_life ? member->short_lives + 1 : 0;
        uint64_t wait_ms = member->short_lives <= SHORT_LIVES_MAX ? RESTART_MS : RESTART_SLOW_MS;
        member->restarts++;
        member->restart_at_ns = now_ns() + wait_ms * 1000000ull;
    }
    return BT_OK;
}

static bool drain_signals(const bt_fleet *fleet)
{
    bool stop = false;
    struct signalfd_siginfo info;
    while (read(fleet->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT || info.ssi_signo == SIGHUP)
            stop = true;
    }
    return stop;
}

static bt_status announce(bt_fleet *fleet, bt_err *err)
{
    if (fleet->announced) return BT_OK;
    if (fleet->pairs_refused > 0)
        return BT_FAIL(err, BT_ERR_VERSION, "a pair was refused: %s", fleet->refusal);
    if (fleet->url[0] == '\0' || fleet->pairs_ready < fleet->pairs_wanted) return BT_OK;
    for (uint32_t i = 0; i < fleet->member_count; i++) {
        if (!fleet->members[i].ready) return BT_OK;
    }
    fleet->announced = true;
    update_state(fleet);
    printf("ready %s\n", fleet->url);
    fflush(stdout);
    return BT_OK;
}

static bt_status restart_due(bt_fleet *fleet, bt_err *err)
{
    for (uint32_t i = 0; i < fleet->member_count; i++) {
        bt_fleet_member *member = &fleet->members[i];
        if (member->restart_at_ns == 0 || member->restart_at_ns > now_ns()) continue;
        bt_status status = spawn(fleet, member, err);
        if (status != BT_OK) return status;
        update_state(fleet);
    }
    return BT_OK;
}

bt_status bt_fleet_run(bt_fleet *fleet, bt_err *err)
{
    int on = 1;
    if (setsockopt(fleet->notify_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0)
        return BT_FAIL(err, BT_ERR_OS, "SO_PASSCRED: %s", strerror(errno));
    bt_status started = write_state(fleet, err);
    if (started == BT_OK) started = spawn(fleet, &fleet->members[0], err);
    if (started != BT_OK) return started;
    bool rest = false;
    for (;;) {
        struct pollfd fds[2] = {{fleet->signal_fd, POLLIN, 0}, {fleet->notify_fd, POLLIN, 0}};
        if (poll(fds, 2, 50) < 0 && errno != EINTR)
            return BT_FAIL(err, BT_ERR_OS, "poll: %s", strerror(errno));
        if (drain_signals(fleet)) return BT_OK;
        bool news = false;
        while (read_notification(fleet)) news = true;
        bt_status status = reap(fleet, err);
        if (status == BT_OK) status = restart_due(fleet, err);
        for (uint32_t i = 1;
             status == BT_OK && !rest && fleet->control[0] != '\0' && i < fleet->member_count; i++)
            status = spawn(fleet, &fleet->members[i], err);
        rest = rest || fleet->control[0] != '\0';
        if (status == BT_OK) status = announce(fleet, err);
        if (status != BT_OK) return status;
        if (news || fleet->changed) update_state(fleet);
        fleet->changed = false;
    }
}

static bool any_alive(const bt_fleet *fleet)
{
    for (uint32_t i = 0; i < fleet->member_count; i++) {
        if (fleet->members[i].pid != 0) return true;
    }
    return false;
}

static void signal_all(const bt_fleet *fleet, int signo)
{
    for (uint32_t i = 0; i < fleet->member_count; i++) {
        if (fleet->members[i].pid != 0) kill(fleet->members[i].pid, signo);
    }
}

void bt_fleet_close(bt_fleet *fleet)
{
    signal_all(fleet, SIGTERM);
    uint64_t end = now_ns() + STOP_GRACE_MS * 1000000ull;
    while (any_alive(fleet)) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        bt_fleet_member *member = pid > 0 ? member_of(fleet, pid) : NULL;
        if (member != NULL) {
            member->pid = 0;
            if (status != 0) describe_exit(member, status);
        }
        if (pid > 0) continue;
        if (now_ns() > end) signal_all(fleet, SIGKILL);
        struct pollfd fd = {fleet->signal_fd, POLLIN, 0};
        poll(&fd, 1, 20);
        drain_signals(fleet);
    }
    for (uint32_t i = 0; i < fleet->member_count; i++)
        if (fleet->members[i].key_fd >= 0) close(fleet->members[i].key_fd);
    if (fleet->keys_fd >= 0) close(fleet->keys_fd);
    if (fleet->notify_fd >= 0) close(fleet->notify_fd);
    if (fleet->signal_fd >= 0) close(fleet->signal_fd);
    if (fleet->dir[0] != '\0') remove_dir(fleet->dir);
    if (fleet->lock_fd >= 0) close(fleet->lock_fd);
}
