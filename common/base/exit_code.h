/* exit_code.h - the exit codes of every Baton program; their help prints this table. */
#ifndef BT_COMMON_BASE_EXIT_CODE_H
#define BT_COMMON_BASE_EXIT_CODE_H

#define BT_EXIT_OK 0
#define BT_EXIT_FAILURE 1 /* the work failed: one line on stderr says why */
#define BT_EXIT_USAGE 2   /* the command line is wrong */
#define BT_EXIT_CONFIG 3  /* the configuration is wrong: file, line, reason */

#define BT_EXIT_CODES_HELP                                                                         \
    "exit codes:\n"                                                                                \
    "  0  ok\n"                                                                                    \
    "  1  the work failed; one line on stderr says why\n"                                          \
    "  2  the command line is wrong\n"                                                             \
    "  3  the configuration is wrong; one line on stderr names file, line and reason\n"

#endif
