#include "common/loop/zap.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_FRAMES_MAX 8u
#define ZAP_FRAME_BYTES_MAX 256u
#define KEY_BYTES 32u
#define LINE_BYTES_MAX 256u

struct bt_zap_table {
    size_t count;
    bt_zpeer peers[BT_ZAP_PEERS_MAX];
};

struct bt_zap {
    const bt_zap_table *table;
    void *socket;
    pthread_t thread;
    atomic_uint_fast64_t refused_total;
};

bt_status bt_zkeypair_generate(bt_zkeypair *ret_pair, bt_err *err)
{
    bt_zkeypair pair;
    if (zmq_curve_keypair(pair.public_key, pair.secret_key) != 0) {
        return BT_FAIL(err, BT_ERR_OS, "CURVE key pair: %s", zmq_strerror(zmq_errno()));
    }
    *ret_pair = pair;
    return BT_OK;
}

static bool is_key(const char *text)
{
    uint8_t bytes[KEY_BYTES];
    return strlen(text) == BT_ZKEY_CHARS && zmq_z85_decode(bytes, text) != NULL;
}

static bool is_name(const char *text, size_t bytes_max)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t length = strlen(text);
    return length > 0 && length < bytes_max && strspn(text, allowed) == length;
}

/* Calls take(arg, line) for each line that says something, without its newline. */
static bt_status read_lines(const char *path, bt_status (*take)(void *arg, char *line, bt_err *err),
                            void *arg, bt_err *err)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) return BT_FAIL(err, BT_ERR_OS, "%s: %s", path, strerror(errno));
    char line[LINE_BYTES_MAX];
    bt_status status = BT_OK;
    for (unsigned number = 1; status == BT_OK && fgets(line, sizeof(line), file) != NULL;
         number++) {
        size_t length = strlen(line);
        bt_err cause = {0};
        if (length == sizeof(line) - 1 && line[length - 1] != '\n') {
            status = BT_FAIL(err, BT_ERR_FORMAT, "%s:%u: the line is too long", path, number);
            break;
        }
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#') continue;
        status = take(arg, line, &cause);
        if (status != BT_OK) BT_FAIL(err, status, "%s:%u: %.120s", path, number, cause.message);
    }
    if (status == BT_OK && ferror(file)) {
        status = BT_FAIL(err, BT_ERR_OS, "%s: %s", path, strerror(errno));
    }
    fclose(file);
    memset(line, 0, sizeof(line));
    return status;
}

static bt_status take_pair_line(void *arg, char *line, bt_err *err)
{
    bt_zkeypair *pair = arg;
    char *value = strchr(line, '=');
    if (value == NULL) return BT_FAIL(err, BT_ERR_FORMAT, "expected public= or secret=");
    *value++ = '\0';
    char *target = strcmp(line, "public") == 0   ? pair->public_key
                   : strcmp(line, "secret") == 0 ? pair->secret_key
                                                 : NULL;
    if (target == NULL) return BT_FAIL(err, BT_ERR_FORMAT, "expected public= or secret=");
    if (target[0] != '\0') return BT_FAIL(err, BT_ERR_FORMAT, "%s= is given twice", line);
    if (!is_key(value)) return BT_FAIL(err, BT_ERR_FORMAT, "%s= is not a Z85 key", line);
    memcpy(target, value, BT_ZKEY_CHARS + 1);
    return BT_OK;
}

bt_status bt_zkeypair_load(const char *path, bt_zkeypair *ret_pair, bt_err *err)
{
    struct stat info;
    if (stat(path, &info) != 0) return BT_FAIL(err, BT_ERR_OS, "%s: %s", path, strerror(errno));
    if ((info.st_mode & S_IRWXO) != 0) {
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: others may read or write this secret (mode %03o)",
                       path, info.st_mode & 0777u);
    }
    bt_zkeypair pair = {0};
    bt_status status = read_lines(path, take_pair_line, &pair, err);
    if (status != BT_OK) return status;
    if (pair.public_key[0] == '\0' || pair.secret_key[0] == '\0') {
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: public= or secret= is missing", path);
    }
    char derived[BT_ZKEY_CHARS + 1];
    if (zmq_curve_public(derived, pair.secret_key) != 0 || strcmp(derived, pair.public_key) != 0) {
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: public= does not belong to secret=", path);
    }
    *ret_pair = pair;
    return BT_OK;
}

bt_status bt_zap_table_create(bt_zap_table **ret_table, bt_err *err)
{
    bt_zap_table *table = calloc(1, sizeof(*table));
    if (table == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "table of keys");
    *ret_table = table;
    return BT_OK;
}

void bt_zap_table_destroy(bt_zap_table *table)
{
    free(table);
}

bt_status bt_zap_table_add(bt_zap_table *table, const char *public_key, const char *role,
                           const char *name, bt_err *err)
{
    if (!is_key(public_key)) return BT_FAIL(err, BT_ERR_FORMAT, "not a Z85 public key");
    if (!is_name(role, BT_ZROLE_BYTES_MAX) || !is_name(name, BT_NAME_BYTES_MAX)) {
        return BT_FAIL(err, BT_ERR_FORMAT, "role and name must be letters, digits, '.', '_', '-'");
    }
    for (size_t i = 0; i < table->count; i++) {
        if (strcmp(table->peers[i].public_key, public_key) == 0) {
            return BT_FAIL(err, BT_ERR_FORMAT, "the key of %s is listed twice", name);
        }
        if (strcmp(table->peers[i].name, name) == 0) {
            return BT_FAIL(err, BT_ERR_FORMAT, "the name %s is listed twice", name);
        }
    }
    if (table->count == BT_ZAP_PEERS_MAX) {
        return BT_FAIL(err, BT_ERR_LIMIT, "more than %u keys", BT_ZAP_PEERS_MAX);
    }
    bt_zpeer *peer = &table->peers[table->count++];
    strcpy(peer->public_key, public_key);
    strcpy(peer->role, role);
    strcpy(peer->name, name);
    return BT_OK;
}

static bt_status take_peer_line(void *arg, char *line, bt_err *err)
{
    char *rest = NULL;
    const char *key = strtok_r(line, " \t", &rest);
    const char *role = strtok_r(NULL, " \t", &rest);
    const char *name = strtok_r(NULL, " \t", &rest);
    if (key == NULL || role == NULL || name == NULL || strtok_r(NULL, " \t", &rest) != NULL) {
        return BT_FAIL(err, BT_ERR_FORMAT, "expected: public key, role, name");
    }
    return bt_zap_table_add(arg, key, role, name, err);
}

bt_status bt_zap_table_load(const char *path, bt_zap_table **ret_table, bt_err *err)
{
    bt_zap_table *table = NULL;
    bt_status status = bt_zap_table_create(&table, err);
    if (status != BT_OK) return status;
    status = read_lines(path, take_peer_line, table, err);
    if (status != BT_OK) {
        bt_zap_table_destroy(table);
        return status;
    }
    *ret_table = table;
    return BT_OK;
}

size_t bt_zap_table_count(const bt_zap_table *table)
{
    return table->count;
}

const bt_zpeer *bt_zap_table_find(const bt_zap_table *table, const char *public_key)
{
    for (size_t i = 0; i < table->count; i++) {
        if (strcmp(table->peers[i].public_key, public_key) == 0) return &table->peers[i];
    }
    return NULL;
}

const bt_zpeer *bt_zap_table_at(const bt_zap_table *table, size_t index)
{
    assert(index < table->count);
    return &table->peers[index];
}

void bt_zpeer_format(const bt_zpeer *peer, char ret_text[BT_ZPEER_TEXT_BYTES_MAX])
{
    int length = snprintf(ret_text, BT_ZPEER_TEXT_BYTES_MAX, "%s %s %s", peer->public_key,
                          peer->role, peer->name);
    assert(length > 0 && (unsigned)length < BT_ZPEER_TEXT_BYTES_MAX);
    (void)length;
}

bt_status bt_zpeer_parse(const char *text, bt_zpeer *ret_peer)
{
    size_t length = strnlen(text, BT_ZPEER_TEXT_BYTES_MAX);
    if (length < BT_ZKEY_CHARS + 4 || length == BT_ZPEER_TEXT_BYTES_MAX) return BT_ERR_FORMAT;
    if (text[BT_ZKEY_CHARS] != ' ') return BT_ERR_FORMAT;
    const char *role = text + BT_ZKEY_CHARS + 1;
    size_t role_chars = strcspn(role, " ");
    if (role_chars == 0 || role_chars >= BT_ZROLE_BYTES_MAX || role[role_chars] != ' ') {
        return BT_ERR_FORMAT;
    }
    const char *name = role + role_chars + 1;
    if (!is_name(name, BT_NAME_BYTES_MAX)) return BT_ERR_FORMAT;
    memset(ret_peer, 0, sizeof(*ret_peer));
    memcpy(ret_peer->public_key, text, BT_ZKEY_CHARS);
    memcpy(ret_peer->role, role, role_chars);
    strcpy(ret_peer->name, name);
    return BT_OK;
}

/* A ZAP request (RFC 27): version, request id, domain, address, identity, mechanism, credentials.
 */
typedef struct {
    unsigned count;
    size_t bytes[ZAP_FRAMES_MAX];
    uint8_t data[ZAP_FRAMES_MAX][ZAP_FRAME_BYTES_MAX];
} zap_request;

enum { ZAP_VERSION, ZAP_ID, ZAP_DOMAIN_, ZAP_ADDRESS, ZAP_IDENTITY, ZAP_MECHANISM, ZAP_KEY };

/* False when the context has been shut down. */
static bool receive_request(void *socket, zap_request *request)
{
    request->count = 0;
    for (;;) {
        uint8_t scratch[ZAP_FRAME_BYTES_MAX];
        bool keep = request->count < ZAP_FRAMES_MAX;
        uint8_t *into = keep ? request->data[request->count] : scratch;
        int bytes = zmq_recv(socket, into, ZAP_FRAME_BYTES_MAX, 0);
        if (bytes < 0) {
            if (zmq_errno() == EINTR) continue;
            return false;
        }
        if (keep) request->bytes[request->count++] = (size_t)bytes;
        int more = 0;
        size_t more_bytes = sizeof(more);
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_bytes);
        if (!more) return true;
    }
}

static bool frame_is(const zap_request *request, unsigned frame, const char *text)
{
    return request->bytes[frame] == strlen(text) &&
           memcmp(request->data[frame], text, strlen(text)) == 0;
}

static const bt_zpeer *find_peer(const bt_zap *zap, const zap_request *request)
{
    if (request->count != ZAP_KEY + 1 || !frame_is(request, ZAP_VERSION, "1.0") ||
        !frame_is(request, ZAP_MECHANISM, "CURVE") || request->bytes[ZAP_KEY] != KEY_BYTES) {
        return NULL;
    }
    char key[BT_ZKEY_CHARS + 1];
    if (zmq_z85_encode(key, request->data[ZAP_KEY], KEY_BYTES) == NULL) return NULL;
    return bt_zap_table_find(zap->table, key);
}

static void *serve_zap(void *arg)
{
    bt_zap *zap = arg;
    zap_request request;
    while (receive_request(zap->socket, &request)) {
        const bt_zpeer *peer = find_peer(zap, &request);
        char user[BT_ZPEER_TEXT_BYTES_MAX] = "";
        if (peer != NULL)
            bt_zpeer_format(peer, user);
        else
            atomic_fetch_add(&zap->refused_total, 1);
        size_t id_bytes = request.count > ZAP_ID ? request.bytes[ZAP_ID] : 0;
        if (id_bytes > ZAP_FRAME_BYTES_MAX) id_bytes = ZAP_FRAME_BYTES_MAX;
        zmq_send(zap->socket, "1.0", 3, ZMQ_SNDMORE);
        zmq_send(zap->socket, request.data[ZAP_ID], id_bytes, ZMQ_SNDMORE);
        zmq_send(zap->socket, peer != NULL ? "200" : "400", 3, ZMQ_SNDMORE);
        zmq_send(zap->socket, peer != NULL ? "OK" : "NO", 2, ZMQ_SNDMORE);
        zmq_send(zap->socket, user, strlen(user), ZMQ_SNDMORE);
        zmq_send(zap->socket, "", 0, 0);
    }
    zmq_close(zap->socket);
    return NULL;
}

bt_status bt_zap_start(void *zmq_ctx, const bt_zap_table *table, bt_zap **ret_zap, bt_err *err)
{
    bt_zap *zap = calloc(1, sizeof(*zap));
    if (zap == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "ZAP handler");
    zap->table = table;
    zap->socket = zmq_socket(zmq_ctx, ZMQ_REP);
    int linger = 0;
    if (zap->socket == NULL || zmq_setsockopt(zap->socket, ZMQ_LINGER, &linger, sizeof(linger)) ||
        zmq_bind(zap->socket, ZAP_ENDPOINT) != 0) {
        bt_status status = BT_FAIL(err, BT_ERR_OS, "ZAP handler: %s", zmq_strerror(zmq_errno()));
        if (zap->socket != NULL) zmq_close(zap->socket);
        free(zap);
        return status;
    }
    /* Signals are the loop's: the handler takes none. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&zap->thread, NULL, serve_zap, zap);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        zmq_close(zap->socket);
        free(zap);
        errno = rc;
        return BT_FAIL(err, BT_ERR_OS, "ZAP handler thread: %s", strerror(rc));
    }
    *ret_zap = zap;
    return BT_OK;
}

void bt_zap_stop(bt_zap *zap)
{
    if (zap == NULL) return;
    pthread_join(zap->thread, NULL);
    free(zap);
}

uint64_t bt_zap_refused_total(const bt_zap *zap)
{
    return zap == NULL ? 0 : atomic_load(&zap->refused_total);
}
