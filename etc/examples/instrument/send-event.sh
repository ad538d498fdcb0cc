#!/bin/sh
# send-event.sh TYPE DATA: tells sixfbd of an event, such as
#
#   send-event.sh ticket_sale '{"orderId":"A-1","cityId":"dallas-2026-03","tier":"ga","quantity":1,"amount":15000,"currency":"usd"}'
#
# SIXFBD_URL is where the daemon listens (http://127.0.0.1:9632 unless set), SIXFBD_TOKEN a token with the scope `events`.
# Returns at once, and never fails whoever calls it: events wait in SIXFBD_SPOOL, a directory of one's own, at most 1,000 of
# them, until the daemon has them; each call sends what waits. What finds no room is dropped, with a line on stderr.
# Needs curl, flock and Linux.

type=${1:?send-event.sh TYPE DATA} data=${2:-'{}'}
url=${SIXFBD_URL:-http://127.0.0.1:9632}
spool=${SIXFBD_SPOOL:-$HOME/.cache/sixfbd}
: "${SIXFBD_TOKEN:?is not set}"

umask 077
mkdir -p "$spool" || exit 0
(
    flock -w 2 9 || exit 0
    if [ "$(cat "$spool/waiting" "$spool/sending" 2>/dev/null | wc -l)" -ge 1000 ]; then
        echo "send-event.sh: 1000 events wait, this one is dropped: is sixfbd there?" >&2
        exit 0
    fi
    printf '{"id":"%s","type":"%s","timestamp":%s,"data":%s}\n' "$(cat /proc/sys/kernel/random/uuid)" \
        "$type" "$(date +%s.%3N)" "$(printf %s "$data" | tr '\n' ' ')" >>"$spool/waiting"
) 9>"$spool/lock"

# One sender at a time, behind the back of whoever called. Without an answer, or with one that says "later" (a status of
# 401, 403, 404, 429, 5xx), the batch stays; events have ids, so that one that was taken already counts once.
send() {
    flock -n 8 || exit 0
    while :; do
        (
            flock -w 2 9 || exit 0
            [ -e "$spool/sending" ] || mv "$spool/waiting" "$spool/sending" 2>/dev/null
        ) 9>"$spool/lock"
        [ -e "$spool/sending" ] || exit 0
        # The token goes in by a pipe: what stands in a command line, everybody on the machine can read.
        status=$(printf 'header = "Authorization: Bearer %s"\n' "$SIXFBD_TOKEN" |
            curl --silent --noproxy '*' --max-time 5 --output /dev/null --write-out '%{http_code}' --config - \
                --header 'Content-Type: application/x-ndjson' --data-binary "@$spool/sending" "$url/api/events")
        case $status in
        2?? | 400 | 413 | 415 | 422) rm -f "$spool/sending" ;;
        *) exit 0 ;;
        esac
    done
}
(send) 8>"$spool/sender" </dev/null >/dev/null 2>&1 &
exit 0
