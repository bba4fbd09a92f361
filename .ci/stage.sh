# Sourced by the scripts here. `stage NAME COMMAND…` runs a command and prints its seconds.
stage() {
    local name=$1 began=$SECONDS
    shift
    "$@"
    echo "STAGE $name: $((SECONDS - began)) s"
}
