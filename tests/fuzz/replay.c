/* replay.c - runs a fuzz target once over every file of a corpus folder, in builds without libFuzzer.
 *
 * usage: fuzz_<format> FOLDER_OR_FILE…    A folder with fewer than SEEDS_MIN files fails. */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SEEDS_MIN 20u
#define FILE_BYTES_MAX (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* The input lies in a heap block of exactly its size, so that a sanitizer sees a read past it. */
static int run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    uint8_t *data = malloc(FILE_BYTES_MAX);
    if (data == NULL) abort();
    size_t bytes = fread(data, 1, FILE_BYTES_MAX, file);
    fclose(file);
    uint8_t *exact = realloc(data, bytes > 0 ? bytes : 1);
    if (exact == NULL) abort();
    LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
    return 0;
}

static int run_folder(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    unsigned count = 0;
    int failed = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char name[4096];
        if (entry->d_name[0] == '.') continue;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        failed |= run_file(name);
        count++;
    }
    closedir(folder);
    printf("%u inputs of %s\n", count, path);
    if (count >= SEEDS_MIN) return failed;
    fprintf(stderr, "%s: fewer than %u seeds\n", path, SEEDS_MIN);
    return 1;
}

int main(int argc, char **argv)
{
    int failed = argc < 2;
    for (int i = 1; i < argc; i++) {
        struct stat info;
        bool folder = stat(argv[i], &info) == 0 && S_ISDIR(info.st_mode);
        failed |= folder ? run_folder(argv[i]) : run_file(argv[i]);
    }
    return failed;
}
