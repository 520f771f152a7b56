/* common/loop/zap.h: key files and the table of known peers. */
#include "common/loop/zap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static bt_zkeypair one, two;
static char path[64];

static int setup(void **state)
{
    (void)state;
    assert_int_equal(bt_zkeypair_generate(&one, NULL), BT_OK);
    assert_int_equal(bt_zkeypair_generate(&two, NULL), BT_OK);
    strcpy(path, "/tmp/baton-test-zap-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static void write_file(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void refuse_table(const char *text, bt_status expected, const char *reason)
{
    bt_zap_table *table = NULL;
    bt_err err = {0};
    write_file(text);
    assert_int_equal(bt_zap_table_load(path, &table, &err), expected);
    assert_null(table);
    assert_non_null(strstr(err.message, path));
    if (strstr(err.message, reason) == NULL) fail_msg("'%s' lacks '%s'", err.message, reason);
}

static void table_is_read_with_comments_and_blanks(void **state)
{
    (void)state;
    char text[512];
    snprintf(text, sizeof(text), "# peers\n\n%s prefill p0\n%s\tdecode  d-1.x\r\n", one.public_key,
             two.public_key);
    write_file(text);
    bt_zap_table *table = NULL;
    assert_int_equal(bt_zap_table_load(path, &table, NULL), BT_OK);
    assert_int_equal(bt_zap_table_count(table), 2);
    const bt_zpeer *peer = bt_zap_table_find(table, two.public_key);
    assert_non_null(peer);
    assert_ptr_equal(peer, bt_zap_table_at(table, 1));
    assert_string_equal(peer->role, "decode");
    assert_string_equal(peer->name, "d-1.x");
    assert_null(bt_zap_table_find(table, one.secret_key));
    bt_zap_table_destroy(table);
}

static void malformed_tables_name_line_and_reason(void **state)
{
    (void)state;
    char text[1024];
    snprintf(text, sizeof(text), "%s prefill p0\nnonsense prefill p1\n", one.public_key);
    refuse_table(text, BT_ERR_FORMAT, ":2: not a Z85");
    snprintf(text, sizeof(text), "%s prefill\n", one.public_key);
    refuse_table(text, BT_ERR_FORMAT, ":1: expected");
    snprintf(text, sizeof(text), "%s prefill p0 more\n", one.public_key);
    refuse_table(text, BT_ERR_FORMAT, ":1: expected");
    snprintf(text, sizeof(text), "%s pre/fill p0\n", one.public_key);
    refuse_table(text, BT_ERR_FORMAT, ":1: role and name");
    snprintf(text, sizeof(text), "%s prefill p0\n%s decode p1\n", one.public_key, one.public_key);
    refuse_table(text, BT_ERR_FORMAT, ":2: the key of p1");
    snprintf(text, sizeof(text), "%s prefill p0\n%s decode p0\n", one.public_key, two.public_key);
    refuse_table(text, BT_ERR_FORMAT, ":2: the name p0");
    memset(text, 'x', 600);
    text[600] = '\0';
    refuse_table(text, BT_ERR_FORMAT, ":1: the line is too long");
}

static void missing_files_say_which(void **state)
{
    (void)state;
    bt_zap_table *table = NULL;
    bt_zkeypair pair;
    bt_err err = {0};
    assert_int_equal(bt_zap_table_load("/nonexistent/keys", &table, &err), BT_ERR_OS);
    assert_non_null(strstr(err.message, "/nonexistent/keys"));
    assert_int_equal(bt_zkeypair_load("/nonexistent/pair", &pair, &err), BT_ERR_OS);
    assert_non_null(strstr(err.message, "/nonexistent/pair"));
}

static void table_has_a_maximum(void **state)
{
    (void)state;
    bt_zap_table *table = NULL;
    assert_int_equal(bt_zap_table_create(&table, NULL), BT_OK);
    bt_status status = BT_OK;
    for (unsigned i = 0; i <= BT_ZAP_PEERS_MAX; i++) {
        char name[16];
        bt_zkeypair pair;
        snprintf(name, sizeof(name), "d%u", i);
        assert_int_equal(status, BT_OK);
        assert_int_equal(bt_zkeypair_generate(&pair, NULL), BT_OK);
        status = bt_zap_table_add(table, pair.public_key, "decode", name, NULL);
    }
    assert_int_equal(status, BT_ERR_LIMIT);
    bt_zap_table_destroy(table);
}

static void key_pair_is_read_and_checked(void **state)
{
    (void)state;
    char text[256];
    bt_zkeypair pair;
    bt_err err = {0};
    snprintf(text, sizeof(text), "public=%s\nsecret=%s\n", one.public_key, one.secret_key);
    write_file(text);
    assert_int_equal(bt_zkeypair_load(path, &pair, &err), BT_OK);
    assert_memory_equal(&pair, &one, sizeof(pair));
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(bt_zkeypair_load(path, &pair, &err), BT_ERR_ARGUMENT);
    assert_int_equal(chmod(path, 0600), 0);
    snprintf(text, sizeof(text), "public=%s\nsecret=%s\n", one.public_key, two.secret_key);
    write_file(text);
    assert_int_equal(bt_zkeypair_load(path, &pair, &err), BT_ERR_FORMAT);
    assert_null(strstr(err.message, two.secret_key));
    write_file("public=x\n");
    assert_int_equal(bt_zkeypair_load(path, &pair, &err), BT_ERR_FORMAT);
    snprintf(text, sizeof(text), "secret=%s\n", one.secret_key);
    write_file(text);
    assert_int_equal(bt_zkeypair_load(path, &pair, &err), BT_ERR_FORMAT);
}

static void peer_text_makes_the_round_trip(void **state)
{
    (void)state;
    bt_zpeer peer = {.role = "prefill", .name = "p0"}, back;
    strcpy(peer.public_key, one.public_key);
    char text[BT_ZPEER_TEXT_BYTES_MAX];
    bt_zpeer_format(&peer, text);
    assert_int_equal(bt_zpeer_parse(text, &back), BT_OK);
    assert_memory_equal(&peer, &back, sizeof(peer));
    assert_int_equal(bt_zpeer_parse("", &back), BT_ERR_FORMAT);
    assert_int_equal(bt_zpeer_parse(one.public_key, &back), BT_ERR_FORMAT);
    text[BT_ZKEY_CHARS + 1] = ' ';
    assert_int_equal(bt_zpeer_parse(text, &back), BT_ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_read_with_comments_and_blanks),
        cmocka_unit_test(malformed_tables_name_line_and_reason),
        cmocka_unit_test(missing_files_say_which),
        cmocka_unit_test(table_has_a_maximum),
        cmocka_unit_test(key_pair_is_read_and_checked),
        cmocka_unit_test(peer_text_makes_the_round_trip),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
