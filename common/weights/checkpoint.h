/* checkpoint.h - the tensors of a checkpoint folder by name: one model.safetensors, or the shards
 * that model.safetensors.index.json names.
 *
 * TRUST   The index is hostile: a shard is a plain file name within the folder, every tensor must be
 *         in the shard the index says, and a missing shard is an error that names it. Tensors that
 *         the index does not name do not exist. Its metadata (total_size) is not believed and used for
 *         nothing; `baton model inspect` shows where it is wrong.
 * CHOICE  Where both are there model.safetensors counts, as in transformers.
 * OWNS    The mappings of all shards; entries live as long as the checkpoint. */
#ifndef BT_COMMON_WEIGHTS_CHECKPOINT_H
#define BT_COMMON_WEIGHTS_CHECKPOINT_H

#include "common/weights/safetensors.h"

#define BT_CHECKPOINT_SHARDS_MAX 1024u

typedef struct bt_checkpoint bt_checkpoint;

/* Errors: ERR_OS (no weights there, which says what is there instead; a shard is missing), ERR_FORMAT,
 * ERR_LIMIT, ERR_NO_MEMORY. */
bt_status bt_checkpoint_open(const char *dir, bt_checkpoint **ret_checkpoint, bt_err *err);
void bt_checkpoint_close(bt_checkpoint *checkpoint);

/* Entries are sorted by name. find: NULL if absent. */
uint32_t bt_checkpoint_count(const bt_checkpoint *checkpoint);
const bt_safetensors_entry *bt_checkpoint_at(const bt_checkpoint *checkpoint, uint32_t index);
const bt_safetensors_entry *bt_checkpoint_find(const bt_checkpoint *checkpoint, const char *name);

uint32_t bt_checkpoint_shards(const bt_checkpoint *checkpoint);
const char *bt_checkpoint_shard_name(const bt_checkpoint *checkpoint, uint32_t index);
/* What the index claims that its tensors take; 0 if it claims nothing or there is no index. */
uint64_t bt_checkpoint_claimed_bytes(const bt_checkpoint *checkpoint);

#endif
