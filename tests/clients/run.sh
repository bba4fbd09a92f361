#!/bin/sh
# Real clients through the broker: Eclipse Paho for Python, MQTT.js, and Mosquitto's programs, in
# MQTT 3.1.1 and 5.0, over TCP and TLS, at QoS 0, 1 and 2.
#
#     cargo build --release && tests/clients/run.sh [BINARY]
#
# Needs python3 with pip, node with npm, mosquitto-clients and openssl. Whatever it installs goes
# into a temporary directory that is removed at the end. Exit code 0 if every cell says ok.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
binary=${1:-$here/../../target/release/hearthmq}
work=$(mktemp -d)
broker=
finish() {
    [ -z "$broker" ] || kill "$broker" 2>/dev/null || true
    [ -z "$broker" ] || wait "$broker" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

echo "installing paho-mqtt and mqtt ..." >&2
PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --target "$work/python" 'paho-mqtt>=2,<3' >&2
npm install --silent --no-fund --no-audit --prefix "$work/node" mqtt@5 >&2
cp "$here"/*mqtt_js.mjs "$work/node/" # next to node_modules, where imports are looked for

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$work/key.pem" -out "$work/ca.pem" 2>/dev/null

"$binary" run --set data_dir="$work/data" --set mqtt.tcp=127.0.0.1:0 --set mqtt.tls=127.0.0.1:0 \
    --set http.listen=127.0.0.1:0 --set auth.scram=true --set tls.certificate="$work/ca.pem" --set tls.key="$work/key.pem" \
    >"$work/out" 2>"$work/log" &
broker=$!
until grep -qs 'listening on http:' "$work/log"; do
    kill -0 "$broker" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
port_of() { sed -n "s|.*listening on $1://.*:\([0-9]*\)$|\1|p" "$work/log"; }
tcp=$(port_of mqtt)
tls=$(port_of mqtts)
export HEARTHMQ_TEST_USER=admin
HEARTHMQ_TEST_PASSWORD=$(sed -n 's/^    admin  //p' "$work/out")
export HEARTHMQ_TEST_PASSWORD

# Every client is called with: port, CA file or "", protocol version (4 or 5), QoS.
paho() { PYTHONPATH="$work/python" python3 "$here/paho_client.py" "$@"; }
mqtt_js() { node "$work/node/mqtt_js.mjs" "$@"; }
mosquitto() { sh "$here/mosquitto.sh" "$@"; }

failed=0
printf '%-10s %-8s %-4s  %-6s %-6s %-6s\n' client version over 'QoS 0' 'QoS 1' 'QoS 2'
for client in paho mqtt_js mosquitto; do
    for version in 4 5; do
        for over in TCP TLS; do
            port=$tcp ca=
            [ "$over" = TCP ] || { port=$tls ca=$work/ca.pem; }
            name=3.1.1
            [ "$version" = 4 ] || name=5.0
            cells=
            for qos in 0 1 2; do
                if $client "$port" "$ca" "$version" "$qos" >"$work/said" 2>&1; then
                    cells="$cells $(printf '%-6s' ok)"
                else
                    cells="$cells $(printf '%-6s' FAILED)"
                    failed=1
                    sed "s/^/    $client $name $over QoS $qos: /" "$work/said" >&2
                fi
            done
            printf '%-10s %-8s %-4s %s\n' "$client" "$name" "$over" "$cells"
        done
    done
done
if node "$work/node/scram_mqtt_js.mjs" "$tcp" admin "$HEARTHMQ_TEST_PASSWORD" >"$work/said" 2>&1; then
    printf '%-10s %-8s %-4s  %s\n' mqtt_js 5.0 TCP 'SCRAM-SHA-256 ok'
else
    failed=1
    sed 's/^/    mqtt_js SCRAM-SHA-256: /' "$work/said" >&2
fi
exit $failed
