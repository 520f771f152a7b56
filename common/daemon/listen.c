#include "common/daemon/listen.h"

#include "common/base/parse.h"

#include <string.h>

bt_status bt_listen_parse(const char *text, bt_listen *ret_listen, bt_err *err)
{
    const char *colon = strrchr(text, ':');
    size_t length = colon != NULL ? (size_t)(colon - text) : 0;
    const char *start = text;
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']') {
        start++;
        length -= 2;
    }
    uint32_t port = 0;
    if (length == 0 || length >= sizeof(ret_listen->address) ||
        bt_parse_u32(colon + 1, 65535, &port, NULL) != BT_OK)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%.80s' is not ADDRESS:PORT", text);
    memcpy(ret_listen->address, start, length);
    ret_listen->address[length] = '\0';
    ret_listen->port = (uint16_t)port;
    return BT_OK;
}
