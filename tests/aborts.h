/* aborts.h - does a call assert? Tried in a child process, whose complaint is not shown. */
#ifndef BT_TESTS_ABORTS_H
#define BT_TESTS_ABORTS_H

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static inline bool bt_test_aborts(void (*call)(void *ctx), void *ctx)
{
    pid_t child = fork();
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        int null = open("/dev/null", O_WRONLY);
        if (null >= 0) dup2(null, STDERR_FILENO);
        call(ctx);
        _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) abort();
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

#endif
