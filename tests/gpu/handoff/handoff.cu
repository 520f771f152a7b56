/* handoff.cu - `gpu-handoff [--check | --bench] [--host] [--transports LIST] [--allow-tcp] [--apart]`: KV of a fake prefill between two processes
 * on one GPU, through everything that a daemon's handoff goes through: layers noticed, frames packed and put, Sealed, unpacked
 * and compared, credited. Prints a table; exits 1 if a check failed.
 *
 * One card does the work of two here: while D unpacks, P's streams stand still, and the other way round (the driver gives
 * each process the card in turns). The rows with "D unpacks" therefore show more than two cards would.
 *
 * FIGURES  `ops/gpu/check --only handoff`, H100 80GB HBM3, UCX 1.22.0, 2026-11-24, copying 3,014 GB/s, three runs, one lane.
 *          1 MiB, layer's end to Sealed opened by D, p50: 30 to 46 us packed with its layer, 42 to 52 packed once noticed, 67 while
 *          layers fill the card, 72 to 78 if D sleeps, 212 to 261 if both do. 8B shape, last layer to last Sealed: 512 tokens
 *          38 to 59 us, 2048 48 to 86, 8192 83 to 147. Puts with their Sealed, four in flight: 16 MiB 1,034 GB/s, 32 MiB 1,208, 64 MiB
 *          1,326. Plain puts over three lanes, by UCX alone: 1,306, 1,423, 1,465. */
#include "tests/gpu/handoff/side.h"

#include <csignal>
#include <cstdio>
#include <cstring>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

constexpr int DEATHS = 2; /* one of each */

static int usage()
{
    fputs("usage: gpu-handoff [--check | --bench] [--host] [--transports LIST] [--allow-tcp] "
          "[--list]\n",
          stderr);
    return 2;
}

static pid_t start(void (*run)(const options &, int, shared_page *), const options &o, int socket,
                   shared_page *page)
{
    pid_t child = fork();
    must(child >= 0, "fork");
    if (child > 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    run(o, socket, page);
    fflush(stdout);
    _exit(0);
}

static shared_page *meet(int sockets[2])
{
    void *page = mmap(nullptr, sizeof(shared_page), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(page != MAP_FAILED && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0,
         "starting");
    return (shared_page *)page;
}

/* As in a container: CUDA does not start where /proc does not know the process. */
static void run_decode_apart(const options &o, int socket, shared_page *page)
{
    must(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
             mount("proc", "/proc", "proc", 0, nullptr) == 0,
         "a /proc of its own");
    run_decode(o, socket, page);
}

/* Whoever ends badly ends the other. */
static int handoff(const options &o)
{
    int sockets[2], code = 0;
    shared_page *page = meet(sockets);
    pid_t p = start(run_prefill, o, sockets[0], page);
    must(!o.apart || unshare(CLONE_NEWPID | CLONE_NEWNS) == 0, "a PID namespace (root only)");
    pid_t d = start(o.apart ? run_decode_apart : run_decode, o, sockets[1], page);
    for (int i = 0; i < 2; i++) {
        int status;
        pid_t ended = wait(&status);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
        if (WIFSIGNALED(status) && code == 0)
            fprintf(stderr, "gpu-handoff: %s: %s\n", ended == p ? "P" : "D",
                    strsignal(WTERMSIG(status)));
        code = 1;
        if (i == 0) kill(ended == p ? d : p, SIGKILL);
    }
    munmap(page, sizeof(*page));
    return code;
}

/* One of the two is killed by the other, which must come to its end. */
static int death(const options &o, bool prefill)
{
    int sockets[2], status;
    shared_page *page = meet(sockets);
    page->doomed = start(prefill ? run_doomed_prefill : run_doomed_decode, o, sockets[0], page);
    pid_t other = start(prefill ? run_mourner : run_widow, o, sockets[1], page);
    must(waitpid(other, &status, 0) == other, "waiting");
    kill(page->doomed, SIGKILL);
    must(waitpid(page->doomed, nullptr, 0) == page->doomed, "waiting");
    bool holds = WIFEXITED(status) && WEXITSTATUS(status) == 0 && !page->changed;
    printf("%-4s handoff            ", holds ? "ok" : "FAIL");
    if (prefill)
        printf("P killed with %u puts under way: nothing is written after its death shows\n",
               page->in_flight);
    else
        printf(
            "D killed with %u puts under way: P's GPU works on; of %llu puts since, %llu failed\n",
            page->in_flight, (unsigned long long)(page->puts_done - page->puts_at_death),
            (unsigned long long)page->puts_failed);
    munmap(page, sizeof(*page));
    return holds ? 0 : 1;
}

int main(int argc, char **argv)
{
    options o;
    for (int i = 1; i < argc; i++) {
        std::string a = argv[i];
        if (a == "--check")
            o.bench = false;
        else if (a == "--bench")
            o.check = false;
        else if (a == "--host")
            o.host = true;
        else if (a == "--allow-tcp")
            o.allow_tcp = true;
        else if (a == "--apart")
            o.apart = true;
        else if (a == "--transports" && i + 1 < argc)
            o.transports = argv[++i];
        else if ((a == "--seed" || a == "--json") && i + 1 < argc)
            i++; /* of gpu-check */
        else if (a == "--list")
            return puts("handoff") < 0;
        else
            return usage();
    }
    setvbuf(stdout, nullptr, _IOLBF, 0);
    int code = handoff(o);
    for (int round = 0; code == 0 && o.check && !o.apart && round < DEATHS; round++)
        code = death(o, round % 2 == 0);
    return code;
}
