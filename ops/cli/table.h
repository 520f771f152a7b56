/* table.h - text in columns as wide as their longest cell, for what people read.
 *
 * FLOW    init with the headings -> cell for each cell, row by row -> print -> finish
 * TEXT    Cells are escaped (bt_escape): what a daemon says cannot move the cursor.
 * BOUNDS  BT_TABLE_COLUMNS_MAX columns, cells of BT_TABLE_CELL_BYTES; longer ones are cut. */
#ifndef BT_OPS_CLI_TABLE_H
#define BT_OPS_CLI_TABLE_H

#include <stdint.h>
#include <stdio.h>

#define BT_TABLE_COLUMNS_MAX 16u
#define BT_TABLE_CELL_BYTES 96u

typedef struct {
    uint32_t columns, width[BT_TABLE_COLUMNS_MAX];
    char (*cells)[BT_TABLE_CELL_BYTES];
    uint32_t count, capacity; /* of cells */
} bt_table;

/* headings: "NAME|ROLE|STATE". */
void bt_table_init(bt_table *table, const char *headings);
/* The next cell. Out of memory: the rest is left out. */
void bt_table_cell(bt_table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Two spaces between columns; nothing behind the last cell of a row. */
void bt_table_print(const bt_table *table, FILE *out);
void bt_table_finish(bt_table *table);

#endif
