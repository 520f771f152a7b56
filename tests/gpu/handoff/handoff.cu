/* handoff.cu - `gpu-handoff [--check | --bench] [--host] [--transports LIST] [--allow-tcp]`: KV of a fake prefill between two processes
 * on one GPU, through everything that a daemon's handoff goes through: layers noticed, frames packed and put, Sealed, unpacked
 * and compared, credited. Prints a table; exits 1 if a check failed.
 *
 * One card does the work of two here: while D unpacks, P's streams stand still, and the other way round (the driver gives
 * each process the card in turns). The rows with "D unpacks" therefore show more than two cards would. */
#include "tests/gpu/handoff/side.h"

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

constexpr int DEATHS = 2;

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

/* Whoever ends badly ends the other. */
static int handoff(const options &o)
{
    int sockets[2], code = 0;
    shared_page *page = meet(sockets);
    pid_t p = start(run_prefill, o, sockets[0], page), d = start(run_decode, o, sockets[1], page);
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

static int death(const options &o)
{
    int sockets[2], status;
    shared_page *page = meet(sockets);
    page->doomed = start(run_doomed, o, sockets[0], page);
    pid_t mourner = start(run_mourner, o, sockets[1], page);
    must(waitpid(mourner, &status, 0) == mourner, "waiting");
    kill(page->doomed, SIGKILL);
    must(waitpid(page->doomed, nullptr, 0) == page->doomed, "waiting");
    bool holds = WIFEXITED(status) && WEXITSTATUS(status) == 0 && !page->changed;
    printf("%-4s handoff            P killed with %u puts under way: nothing is written after its "
           "death shows\n",
           holds ? "ok" : "FAIL", page->in_flight);
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
    for (int round = 0; code == 0 && o.check && round < DEATHS; round++) code = death(o);
    return code;
}
