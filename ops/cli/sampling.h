/* sampling.h - the sampling flags that `baton generate` has beside numbers: lists of ids and of
 * biases. */
#ifndef BT_OPS_CLI_SAMPLING_H
#define BT_OPS_CLI_SAMPLING_H

#include "common/base/sampling.h"
#include "common/base/status.h"

/* "5:-100,17:2.5": sorted by id into rows [BT_LOGIT_BIAS_MAX], which sampling borrows. Errors:
 * ERR_ARGUMENT. */
bt_status bt_cli_bias_parse(const char *list, bt_logit_bias *rows, bt_sampling *sampling,
                            bt_err *err);

/* "1,2,3", BT_STOP_IDS_MAX at most. Errors: ERR_ARGUMENT. */
bt_status bt_cli_stop_ids_parse(const char *list, bt_sampling *sampling, bt_err *err);

#endif
