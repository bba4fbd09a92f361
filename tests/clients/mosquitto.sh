#!/bin/bash
# Mosquitto's clients: mosquitto_pub, mosquitto_sub and mosquitto_rr, which use libmosquitto. Called
# by run.py, which documents the environment and the output.
#
# They show neither Session Present nor the granted QoS: the received messages do.
set -euo pipefail

patience=20 # seconds
port=${URL##*:}
version=mqttv311
[ "$VERSION" = 4 ] || version=mqttv5
options=(-h localhost -p "$port" -V "$version" -P "$PASSWORD")
[[ $URL != mqtts:* ]] || options+=(--cafile "$CA")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

client() { # program, client identifier, arguments
    stdbuf -oL "$1" "${options[@]}" -u "$USERNAME" -i "$NAME-$2" "${@:3}"
}
publish() { client mosquitto_pub publisher "$@"; }
# Starts to write received messages to a file; returns once -d prints the subscription.
subscribe() { # file, client identifier, arguments
    client mosquitto_sub "$2" -d -W "$patience" -F 'got %p' "${@:3}" >"$work/$1" 2>&1 &
    subscriber=$!
    wait_for "$1" Subscribed
}
wait_for() { # file, text
    for ((tries = 0; tries < patience * 20; tries++)); do
        ! grep -q "$2" "$work/$1" 2>/dev/null || return 0
        sleep 0.05
    done
    cat "$work/$1"
    return 1
}
got() { sed -n 's/^got //p' "$work/$1"; }
expect() { # what was seen, what is expected
    [ "$1" = "$2" ] || { echo "saw $1"; return 1; }
}

connect() {
    client mosquitto_pub connect -q 1 -t "$NAME/connect" -m ''
    ! mosquitto_pub "${options[@]}" -u "nobody-$NAME" -i "$NAME-connect" -t "$NAME/connect" -m '' 2>"$work/refused" ||
        { echo "a wrong password is let in"; return 1; }
    grep -qi 'not authori[sz]ed\|user name or password' "$work/refused"
}

round_trip() {
    subscribe "$1" "qos-$1" -q "$1" -t "$NAME/qos/$1" -C 100 -F 'got %q %p'
    seq 0 99 | publish -q "$1" -t "$NAME/qos/$1" -l
    wait "$subscriber"
    expect "$(got "$1")" "$(seq -f "$1 %g" 0 99)"
}

retained() {
    publish -q 1 -t "$NAME/retained" -r -m kept
    expect "$(client mosquitto_sub subscriber -t "$NAME/retained" -C 1 -W "$patience" -F '%r %p')" '1 kept'
    publish -q 1 -t "$NAME/retained" -r -n
    subscribe retained subscriber -t "$NAME/retained" -C 1 -F 'got %r %p'
    publish -q 1 -t "$NAME/retained" -m marker
    wait "$subscriber"
    expect "$(got retained)" '0 marker'
}

will() {
    subscribe will watcher -q 1 -t "$NAME/will" -C 1
    watcher=$subscriber
    # Not through client(): the process itself must be killed, not the shell around it.
    stdbuf -oL mosquitto_sub "${options[@]}" -u "$USERNAME" -i "$NAME-victim" -d -t "$NAME/nothing" \
        --will-topic "$NAME/will" --will-payload gone --will-qos 1 >"$work/victim" 2>&1 &
    wait_for victim Subscribed
    kill -9 $!
    wait $! 2>/dev/null || true
    wait "$watcher"
    expect "$(got will)" gone
}

shared() {
    for member in a b; do
        subscribe "$member" "$member" -q 1 -t "\$share/group/$NAME/shared" -t "$NAME/shared/end" -F 'got %t %p'
        wait_for "$member" 'Subscribed.*'
        members+=("$subscriber")
    done
    seq -w 0 19 | publish -q 1 -t "$NAME/shared" -l
    publish -q 1 -t "$NAME/shared/end" -m ''
    wait_for a /end
    wait_for b /end
    kill "${members[@]}"
    expect "$(cat <(got a) <(got b) | sed -n 's|.*/shared ||p' | sort)" "$(seq -w 0 19)"
    grep -q '/shared ' "$work/a" && grep -q '/shared ' "$work/b" || { echo "one member got everything"; return 1; }
}

properties() {
    subscribe properties properties -q 1 -t "$NAME/properties" -C 1 -D SUBSCRIBE subscription-identifier 7 \
        -F 'got %F %C %R %D %P %S %E'
    publish -q 1 -t "$NAME/properties" -m x -D PUBLISH payload-format-indicator 1 -D PUBLISH content-type text/plain \
        -D PUBLISH response-topic answer -D PUBLISH correlation-data 17 -D PUBLISH message-expiry-interval 60 \
        -D PUBLISH user-property a 1 -D PUBLISH user-property a 2 -D PUBLISH topic-alias 1
    wait "$subscriber"
    read -r -a seen <<<"$(got properties)"
    expect "${seen[*]:0:7}" '1 text/plain answer 17 a:1 a:2 7'
    ((seen[7] > 0 && seen[7] <= 60)) || { echo "Message Expiry Interval is ${seen[7]}"; return 1; }
    client mosquitto_pub reason -d -q 1 -t "$NAME/nobody" -m '' | grep -q 'PUBACK.*RC:16' ||
        { echo "PUBACK does not say No matching subscribers"; return 1; }
}

session() {
    keep=(-q 1 -t "$NAME/session" -c)
    [ "$VERSION" = 4 ] || keep+=(-x 60)
    client mosquitto_sub session "${keep[@]}" -E
    seq 0 2 | publish -q 1 -t "$NAME/session" -l
    expect "$(client mosquitto_sub session "${keep[@]}" -C 3 -W "$patience")" "$(seq 0 2)"
}

cell() { # name, function, arguments
    set +e # Not in an `if`: there the first failure would not end a function.
    said=$(set -e; "${@:2}" 2>&1)
    status=$?
    set -e
    if [ "$status" = 0 ]; then
        printf '%s\tok\n' "$1"
    else
        printf '%s\tFAIL\t%s\n' "$1" "${said//$'\n'/ }"
    fi
}

cell connect connect
for qos in 0 1 2; do cell "QoS $qos" round_trip "$qos"; done
cell retained retained
cell will will
cell shared shared
[ "$VERSION" = 4 ] || cell properties properties
cell session session
