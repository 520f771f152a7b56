#include "ops/cli/table.h"

#include "common/base/parse.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Columns of a terminal that a cell takes: code points, which is right but for wide scripts. */
static uint32_t width_of(const char *text)
{
    uint32_t width = 0;
    for (; *text != '\0'; text++) width += ((uint8_t)*text & 0xc0) != 0x80;
    return width;
}

static void add(bt_table *table, const char *text)
{
    if (table->count == table->capacity) {
        uint32_t capacity = table->capacity == 0 ? 64 : table->capacity * 2;
        void *cells = realloc(table->cells, (size_t)capacity * BT_TABLE_CELL_BYTES);
        if (cells == NULL) return;
        table->cells = cells;
        table->capacity = capacity;
    }
    char *cell = table->cells[table->count];
    bt_escape(text, strlen(text), cell, BT_TABLE_CELL_BYTES);
    uint32_t column = table->count++ % table->columns, width = width_of(cell);
    if (width > table->width[column]) table->width[column] = width;
}

void bt_table_init(bt_table *table, const char *headings)
{
    *table = (bt_table){.columns = 1};
    for (const char *at = headings; *at != '\0'; at++) table->columns += *at == '|';
    assert(table->columns <= BT_TABLE_COLUMNS_MAX);
    while (headings != NULL) {
        char heading[BT_TABLE_CELL_BYTES];
        const char *end = strchr(headings, '|');
        snprintf(heading, sizeof(heading), "%.*s",
                 end != NULL ? (int)(end - headings) : (int)strlen(headings), headings);
        add(table, heading);
        headings = end != NULL ? end + 1 : NULL;
    }
}

void bt_table_cell(bt_table *table, const char *fmt, ...)
{
    char text[BT_TABLE_CELL_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    add(table, text);
}

void bt_table_print(const bt_table *table, FILE *out)
{
    for (uint32_t row = 0; row + table->columns <= table->count; row += table->columns) {
        uint32_t last = table->columns;
        while (last > 0 && table->cells[row + last - 1][0] == '\0') last--;
        for (uint32_t column = 0; column < last; column++) {
            const char *cell = table->cells[row + column];
            uint32_t pad = column + 1 < last ? table->width[column] - width_of(cell) + 2 : 0;
            fprintf(out, "%s%*s", cell, (int)pad, "");
        }
        fputc('\n', out);
    }
}

void bt_table_finish(bt_table *table)
{
    free(table->cells);
    *table = (bt_table){0};
}
