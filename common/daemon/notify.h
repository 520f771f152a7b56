/* notify.h - tells whoever started us how we are, by systemd's notification protocol (a datagram to
 * $NOTIFY_SOCKET).
 *
 * systemd reads READY=1, STATUS=… and STOPPING=1; `baton up` reads X_BATON_…=… beside them. Without
 * the variable nothing is sent. The socket's name is taken from the environment, as the protocol
 * demands. */
#ifndef BT_COMMON_DAEMON_NOTIFY_H
#define BT_COMMON_DAEMON_NOTIFY_H

/* Lines of KEY=VALUE, at most 2,000 bytes. Never fails: a notification that nobody takes is lost.
 */
void bt_notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
