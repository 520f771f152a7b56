/* report.h - what `baton model inspect` finds in a folder, as numbers; inspect.c prints them.
 *
 * TRUST   The folder is hostile, as for the engine (common/weights); texts from it are cut and escaped
 *         for a terminal. A folder that Baton refuses is still described, as far as its config.json and
 *         tensors can be read: numbers that are not there are 0 and left out of the text. */
#ifndef BT_OPS_CLI_MODEL_REPORT_H
#define BT_OPS_CLI_MODEL_REPORT_H

#include "common/weights/model.h"

/* Kinds of modules, by the names of their tensors. */
typedef enum {
    BT_PART_EMBEDDING,
    BT_PART_ATTENTION,
    BT_PART_MLP,
    BT_PART_NORMS,
    BT_PART_HEAD,
    BT_PART_OTHER,
    BT_PART_COUNT
} bt_report_part;

#define BT_REPORT_DTYPES_MAX 16u
#define BT_REPORT_TEXT_BYTES 512u

typedef struct {
    const char *name; /* as safetensors spell it; static storage */
    uint64_t elements, bytes;
} bt_report_dtype;

typedef struct {
    char dir[BT_REPORT_TEXT_BYTES], name[BT_NAME_BYTES_MAX];
    bool runs;
    char reason[BT_REPORT_TEXT_BYTES]; /* why it does not */

    char architecture[128], model_type[128]; /* as config.json has them; may be empty */
    bool understood;                         /* config below is complete */
    bt_model_config config; /* else only sizes, as far as config.json has them; context of 0 */

    bool has_tensors;
    char tensors_reason[BT_REPORT_TEXT_BYTES]; /* why it has none */
    uint32_t tensors, shards;
    uint64_t elements, bytes, claimed_bytes;
    uint64_t part_elements[BT_PART_COUNT], part_bytes[BT_PART_COUNT];
    bt_report_dtype dtypes[BT_REPORT_DTYPES_MAX]; /* most bytes first */
    uint32_t dtype_count;

    bool tokenizer_there, tokenizer_usable;
    uint32_t tokenizer_ids;
    char tokenizer_reason[BT_REPORT_TEXT_BYTES];
    const char *chat_template; /* the file that has it, NULL if none has; static storage */
} bt_report;

extern const char *const bt_report_part_names[BT_PART_COUNT];

/* Always fills the whole report. */
void bt_report_make(const char *dir, bt_report *ret_report);

/* The KV dtypes a pool may have, and the bytes of one token in each; 0 if the sizes are not known. */
extern const bt_dtype bt_report_kv_dtypes[4];
uint64_t bt_report_kv_bytes(const bt_report *report, bt_dtype dtype);

#endif
