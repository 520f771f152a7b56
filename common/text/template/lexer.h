/* lexer.h - a template's text to tokens, by Jinja's rules with trim_blocks and lstrip_blocks: what
 * is blank around tags is gone already. Source and literals are UTF-8; the last newline of the
 * source is dropped. */
#ifndef BT_COMMON_TEXT_TEMPLATE_LEXER_H
#define BT_COMMON_TEXT_TEMPLATE_LEXER_H

#include "common/base/status.h"
#include "common/text/template/arena.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    BT_TPL_T_EOF,
    BT_TPL_T_DATA,
    BT_TPL_T_BLOCK_BEGIN,
    BT_TPL_T_BLOCK_END,
    BT_TPL_T_PRINT_BEGIN,
    BT_TPL_T_PRINT_END,
    BT_TPL_T_NAME,
    BT_TPL_T_STRING,
    BT_TPL_T_INT,
    BT_TPL_T_FLOAT,
    BT_TPL_T_OPERATOR
} bt_tpl_token_type;

typedef struct {
    bt_tpl_token_type type;
    uint32_t line;
    const char *text; /* of an operator: NUL-terminated; else bytes of it */
    size_t bytes;
    int64_t number;
    double real;
} bt_tpl_token;

typedef struct {
    bt_tpl_token *tokens; /* the last one is EOF */
    size_t count, capacity;
} bt_tpl_tokens;

/* text must outlive the tokens. */
bt_status bt_tpl_lex(const char *text, size_t bytes, const char *label, bt_tpl_arena *arena,
                     bt_tpl_tokens *ret_tokens, bt_err *err);

#endif
