/* steps.h - text to text in steps: what a normalizer does to a text and a decoder to a token.
 *
 * FLOW    a stage's file reads its kinds and adds steps -> run, any number of times, any thread */
#ifndef BT_COMMON_TEXT_STEPS_H
#define BT_COMMON_TEXT_STEPS_H

#include "common/text/buffer.h"
#include "common/text/json.h"
#include "common/text/pattern.h"

typedef struct bt_step bt_step;
struct bt_step {
    /* Adds to `to`, which is empty, what becomes of `from`. */
    bt_status (*run)(const bt_step *step, const bt_buffer *from, bt_buffer *to, bt_err *err);
    bt_pattern pattern;
    char content[BT_STAGE_TEXT_BYTES_MAX + 1]; /* what is prepended, or put in place of a match */
    uint32_t start, stop;                      /* for the kind's own use */
};

typedef struct {
    uint32_t count;
    bt_step steps[BT_STAGE_STEPS_MAX];
} bt_steps;

/* A new step, zeroed but for run. ERR_LIMIT: there are BT_STAGE_STEPS_MAX. */
bt_status bt_steps_add(bt_steps *steps,
                       bt_status (*run)(const bt_step *, const bt_buffer *, bt_buffer *, bt_err *),
                       bt_step **ret_step, bt_err *err);

/* {"type": "Replace", "pattern": …, "content": "…"} */
bt_status bt_steps_add_replace(bt_steps *steps, const json_t *stage, bt_err *err);
/* Replaces one string by another, each of 1 to BT_STAGE_TEXT_BYTES_MAX bytes. */
bt_status bt_steps_add_exchange(bt_steps *steps, const char *from, const char *to, bt_err *err);

/* Sets ret_text, which is empty, to what all steps make of a text; marks may be NULL. */
bt_status bt_steps_run(const bt_steps *steps, const char *text, const uint8_t *marks, size_t bytes,
                       bt_buffer *ret_text, bt_err *err);

#endif
