#include "ops/cli/bench/progress.h"

#include "common/base/clock.h"

#include <stdio.h>
#include <unistd.h>

#define BAR_WIDTH 24u

void bt_progress_init(bt_progress *progress, unsigned servers, uint64_t requests,
                      uint64_t duration_ns, bool quiet)
{
    *progress = (bt_progress){.on = !quiet && isatty(STDERR_FILENO) == 1,
                              .servers = servers,
                              .requests = requests,
                              .duration_ns = duration_ns};
}

void bt_progress_begin(bt_progress *progress, uint64_t now_ns)
{
    progress->began_ns = now_ns;
}

void bt_progress_text(const bt_progress *progress, uint64_t now_ns, uint64_t ended, uint64_t failed,
                      uint32_t in_flight, char *ret_text, size_t capacity)
{
    double past_s = (double)(now_ns - progress->began_ns) / 1e9;
    double total = (double)(progress->requests * progress->servers);
    double share = total > 0
                       ? (double)ended / total
                       : past_s * 1e9 / ((double)progress->duration_ns * (double)progress->servers);
    if (!(share >= 0)) share = 0;
    if (share > 1) share = 1;
    char bar[BAR_WIDTH + 1], left[32] = "";
    for (unsigned i = 0; i < BAR_WIDTH; i++) bar[i] = i < share * BAR_WIDTH ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    if (share > 0.01) snprintf(left, sizeof(left), ", %.0f s left", past_s / share - past_s);
    snprintf(ret_text, capacity, "[%s] %3.0f %%  %llu done, %llu failed, %u in flight, %.1f/s%s",
             bar, 100 * share, (unsigned long long)ended, (unsigned long long)failed, in_flight,
             past_s > 0 ? (double)ended / past_s : 0, left);
}

void bt_progress_show(void *arg, const bt_result *results, uint32_t in_flight, bool warmup)
{
    const bt_progress *progress = arg;
    if (!progress->on) return;
    if (warmup) {
        fprintf(stderr, "\r\033[Kwarming up, %u in flight", in_flight);
        return;
    }
    uint64_t ended = 0, failed = 0;
    for (unsigned i = 0; i < progress->servers; i++) {
        ended += results[i].record_count;
        failed += results[i].failed;
    }
    char text[160];
    bt_progress_text(progress, bt_monotonic_ns(), ended, failed, in_flight, text, sizeof(text));
    fprintf(stderr, "\r\033[K%s", text);
}

void bt_progress_end(bt_progress *progress)
{
    if (progress->on) fputs("\r\033[K", stderr);
}
