/* keygen.c - `baton keygen`: one CURVE key pair for a daemon. */
#include "common/base/crypto.h"
#include "ops/cli/command.h"
#include "ops/cli/options.h"

#include <stdio.h>
#include <string.h>
#include <zmq.h>

static int run_keygen(int argc, char **argv)
{
    int code = bt_options_parse(argc, argv, NULL, 0);
    if (code != BT_EXIT_OK) return code;
    char public_key[41], secret_key[41];
    if (zmq_curve_keypair(public_key, secret_key) != 0) {
        fprintf(stderr, "baton keygen: %s\n", zmq_strerror(zmq_errno()));
        return BT_EXIT_FAILURE;
    }
    printf("public=%s\nsecret=%s\n", public_key, secret_key);
    return BT_EXIT_OK;
}

const bt_cli_command bt_cli_keygen = {
    .name = "keygen",
    .summary = "make a CURVE key pair",
    .help =
        "usage: baton keygen\n\n"
        "Prints a new CURVE key pair as `public=` and `secret=` lines (Z85, 40 characters each).\n"
        "Keep the secret in a file that only the daemon can read; list the public key with its\n"
        "role in the keys file of the daemons it talks to.\n\n"
        "Exit codes: 0 done, 1 no key could be made, 2 wrong usage.\n\n"
        "Example: baton keygen\n",
    .run = run_keygen,
};
