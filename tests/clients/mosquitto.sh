#!/bin/sh
# mosquitto_pub and mosquitto_sub: every message once and in its order.
#
# Called by run.sh with: port, CA file or "", protocol version (4 or 5), QoS.
set -eu

port=$1 ca=$2 qos=$4
version=mqttv311
[ "$3" = 4 ] || version=mqttv5
topic=mosquitto/$3/$port/$qos
work=$(mktemp -d)
subscriber=
finish() {
    [ -z "$subscriber" ] || kill "$subscriber" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

set -- -h localhost -p "$port" -V "$version" -q "$qos" -t "$topic" \
    -u "$HEARTHMQ_TEST_USER" -P "$HEARTHMQ_TEST_PASSWORD"
[ -z "$ca" ] || set -- "$@" --cafile "$ca"

# -d prints the SUBACK, which is waited for: what is published before it is not for this one.
stdbuf -oL mosquitto_sub "$@" -d -C 100 -W 20 -F 'got %q %p' >"$work/log" 2>&1 &
subscriber=$!
until grep -q 'Subscribed' "$work/log"; do
    kill -0 "$subscriber" 2>/dev/null || { cat "$work/log"; exit 1; }
    sleep 0.05
done
seq -f 'message %g' 0 99 | mosquitto_pub "$@" -l
wait "$subscriber"
subscriber=
sed -n 's/^got //p' "$work/log" >"$work/got"
seq -f "$qos message %g" 0 99 | diff - "$work/got"
